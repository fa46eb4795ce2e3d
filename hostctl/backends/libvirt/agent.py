"""QEMU's guest agent through libvirt, which keeps the agent's line to itself and lends its voice.

`virDomainQemuAgentCommand` carries one request and its reply, over any connection, ssh included.
libvirt has done the syncing; what it cannot carry (a string of its protocol has 4 MiB) is refused
by size.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any, Final

from hostctl_channels.deadline import Deadline, Timeline
from hostctl_channels.errors import (
    ChannelClosed,
    ChannelTimeout,
    LocalProtocolError,
    ReplyTooLong,
)

from ...errors import BackendError
from .binding import libvirt
from .connection import Connection

if TYPE_CHECKING:
    from hostctl_channels.interface import Pulse
    from hostctl_channels.links.interface import Link
    from hostctl_channels.qga.wire import Request

__all__ = ["AgentEndpoint", "LibvirtExchange"]

# REMOTE_STRING_MAX of libvirt's remote_protocol.x, less room for its own envelope.
_MOST: Final = 4194304 - 4096
# libvirt writes a request to a non-blocking socket, and begins anew when the socket is full before
# its end (seen in 9.0 with strace: 182720 of 266759 bytes, EAGAIN, and again from byte 0): the
# agent reads garbage, and nobody hears of it again. Linux takes that much by default
# (net.core.wmem_default); half of it is safe.
_MOST_ASKED: Final = 96 * 1024
_AGAIN_S: Final = 0.5  # until an agent that libvirt has not seen yet is asked again
_SLACK_S: Final = 10.0  # for libvirt's own timeout to come back
_REFUSED: Final = "unable to execute QEMU agent command"


class AgentEndpoint:
    """The guest agent's port of a domain: no line of its own, but an exchange."""

    def __init__(self, connection: Connection, uuid: str) -> None:
        self._connection = connection
        self._uuid = uuid

    async def open(self) -> Link:
        """See Endpoint."""
        raise ChannelClosed("libvirt keeps the guest agent's line to itself")

    def exchange(self, pulse: Pulse) -> LibvirtExchange:
        """Return what carries requests to the agent."""
        return LibvirtExchange(self._connection, self._uuid, pulse)


class LibvirtExchange:
    """See qga.exchange.Exchange."""

    max_request_bytes = _MOST_ASKED
    max_reply_bytes = _MOST

    def __init__(self, connection: Connection, uuid: str, pulse: Pulse) -> None:
        self._connection = connection
        self._uuid = uuid
        self._pulse = pulse
        self._turn = asyncio.Lock()
        self._epoch: int | None = None

    @property
    def is_warm(self) -> bool:
        """See Exchange."""
        return self._epoch == self._pulse.epoch()

    async def ask(self, request: Request, timeout_s: float) -> bytes:
        """See Exchange."""
        if len(request.text) > _MOST_ASKED:
            size = len(request.text)
            raise LocalProtocolError(f"{request.rpc}: {size} bytes; libvirt carries {_MOST_ASKED}")
        async with self._turn, Deadline(self._pulse, timeout_s, request.rpc):
            epoch, timeline = self._pulse.epoch(), Timeline(self._pulse, request.rpc)
            reply = await self._asked(request, timeout_s)
            while reply is None:  # nobody tells us when it comes
                await asyncio.sleep(_AGAIN_S)
                reply = await self._asked(request, timeout_s)
        timeline.check()
        self._epoch = epoch
        return reply

    async def _asked(self, request: Request, timeout_s: float) -> bytes | None:
        """Return the reply; None if no agent has said hello to libvirt yet."""
        text, limit = request.text.decode(), max(1, math.ceil(timeout_s))
        try:
            return await self._connection.call(
                request.rpc,
                lambda connect: _ask(connect.lookupByUUIDString(self._uuid), text, limit),
                again=False,
                timeout_s=limit + _SLACK_S,
            )
        except BackendError as err:
            self._epoch = None
            raise ChannelClosed(f"{request.rpc}: {err}") from err

    async def close(self) -> None:
        """See Exchange."""
        self._epoch = None


def _ask(domain: Any, text: str, limit: int) -> bytes | None:
    """In the connection's thread."""
    import libvirt_qemu

    library = libvirt()
    try:
        reply: str = libvirt_qemu.qemuAgentCommand(domain, text, limit, 0)
    except library.libvirtError as err:
        code, said = err.get_error_code(), str(err)
        if code == library.VIR_ERR_AGENT_UNRESPONSIVE:
            if "not connected" in said:
                return None
            raise ChannelTimeout(f"no answer of the guest agent within {limit} s") from err
        if code == library.VIR_ERR_RPC and "payload" in said:
            raise ReplyTooLong(f"libvirt carries replies of up to {_MOST} bytes") from err
        if _REFUSED in said:  # the agent's own error, in libvirt's words
            return json.dumps({"error": {"class": "GenericError", "desc": said}}).encode()
        raise
    return reply.encode()
