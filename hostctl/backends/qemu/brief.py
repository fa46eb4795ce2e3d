"""One short command to QEMU's monitor, without the library that conversations need.

qemu.qmp takes 80 ms of CPU to load and several to connect, and a clone of a pool shall be handed
out in 20. What has no answer to speak of is said here: a greeting, a command, its return.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Final

from ...errors import MonitorError

__all__ = ["tell"]

TELL_S: Final = 10.0  # as monitor.COMMAND_S
_OURS: Final = "hostctl"


async def tell(path: Path, command: str, timeout_s: float = TELL_S) -> None:
    """Have QEMU obey `command` at the monitor `path`.

    Raises:
        MonitorError: refused, no answer in time, or QEMU is not there; before its greeting
            `command` is "connect".
    """
    doing = "connect"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                json.loads(await reader.readline())  # the end of a stream is no JSON: ValueError
                for doing in ("qmp_capabilities", command):
                    writer.write(json.dumps({"execute": doing, "id": _OURS}).encode() + b"\n")
                    await _answer(reader, doing)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
    except TimeoutError:
        hint = "another program holds the monitor, or qemu hangs"
        raise MonitorError(doing, f"no answer within {timeout_s:g} s", hint=hint) from None
    except (OSError, ValueError) as err:
        raise MonitorError(doing, f"qemu ended before it answered: {err}") from err


async def _answer(reader: asyncio.StreamReader, command: str) -> None:
    """Wait for the next line that is no event. Raises MonitorError if it is a refusal."""
    while True:
        answer: dict[str, Any] = json.loads(await reader.readline())
        if "error" in answer:
            raise MonitorError(command, str(answer["error"].get("desc")))
        if answer.get("id") == _OURS:
            return
