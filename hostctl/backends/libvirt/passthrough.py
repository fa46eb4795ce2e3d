"""QEMU's own monitor, through libvirt: only asked, and only of machines that are ours.

libvirt marks a domain whose monitor was used; that is nobody's business on somebody else's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import MonitorError
from .connection import Connection

__all__ = ["Passthrough"]


class Passthrough:
    """See `inventory.Asks`."""

    def __init__(self, connection: Connection, uuid: str) -> None:
        self._connection = connection
        self._uuid = uuid

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command and return its answer."""
        request = {"execute": command, "arguments": dict(arguments or {})}
        text = await self._connection.call(command, lambda connect: self._ask(connect, request))
        answer = json.loads(text)
        if "error" in answer:
            raise MonitorError(command, answer["error"].get("desc", "refused"))
        return answer["return"]

    def _ask(self, connect: Any, request: Mapping[str, object]) -> str:
        import libvirt_qemu

        domain = connect.lookupByUUIDString(self._uuid)
        text: str = libvirt_qemu.qemuMonitorCommand(domain, json.dumps(request), 0)
        return text
