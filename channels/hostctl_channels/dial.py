"""A connection to a socket in the guest, made there by a tool that it has, carried by one command.

Each takes a work port and a pair of stream ports for as long as it lasts. Needs a channel with live
streams and standard input, and nothing of the agent: guestside's dial.sh goes along.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from errno import ECONNREFUSED
from typing import Final

from hostctl_guestside import dial_script

from .errors import LocalProtocolError, Refused, RequestFailed
from .interface import STDERR, Buffer, Channel, Command, Process
from .notes import Notes, need_live

__all__ = ["TOOLS", "GuestSocket", "Target", "dial"]

# First those that close halves right, of these what starts quickly. netcat: any but busybox's.
TOOLS: Final = ("perl", "python3", "busybox", "socat", "netcat")
HOST: Final = "127.0.0.1"  # the guest's own

_NO_TOOL: Final = 69
_MAX_TEXT: Final = 1024  # of what a tool complains
_COUNT: Final = re.compile(rb"\d{1,18}")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,253}|::[0-9A-Fa-f:]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A listening socket in the guest: a port of a host that the guest can reach, or a path."""

    port: int = 0
    host: str = HOST
    path: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            if not self.path.startswith("/") or "\0" in self.path:
                raise LocalProtocolError(f"not a socket's path: {self.path!r}")
        elif not 0 < self.port < 2**16 or not _HOST.fullmatch(self.host):
            raise LocalProtocolError(f"not a host and a port: {self.host}:{self.port}")

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return str(self.port) if self.host == HOST else f"{self.host}:{self.port}"

    @property
    def words(self) -> tuple[str, ...]:
        """What dial.sh calls it."""
        return ("tcp", self.host, str(self.port)) if self.path is None else ("unix", self.path)


@asynccontextmanager
async def dial(
    channel: Channel, target: Target, tools: Sequence[str] = TOOLS
) -> AsyncIterator[GuestSocket]:
    """Connect to a socket in the guest by the first of `tools` that it has.

    Leaving the context ends the connection, whatever is open. That it could not be reached is told
    by the first `read`.

    Raises:
        Refused: the channel has no live streams.
        PortsBusy: no port of the machine became free.
    """
    await need_live(channel, "forwarding")
    notes = Notes()
    script = ("sh", "-c", 'eval "$1"', "dial", dial_script(), notes.token, " ".join(tools))
    command = Command.of(*script, *target.words)
    async with channel.spawn(command, stdin=True) as process:
        yield GuestSocket(process, notes, target)


class GuestSocket:
    """One connection, for one reader and one writer."""

    def __init__(self, process: Process, notes: Notes, target: Target) -> None:
        self._process = process
        self._notes = notes
        self._target = target
        self._read = 0
        self._text = b""
        self.is_open = True  # False once its tool has ended: nobody reads what is written

    async def read(self) -> bytes | None:
        """Return what came as soon as there is any, or None when the guest has sent its last.

        Raises:
            RequestFailed: nobody listens there, as far as the guest tells.
            Refused: the guest has no tool for such a socket.
        """
        while not self._is_read:
            piece = await self._process.read()
            if piece is None:
                await self._end()
                return None
            stream, data = piece
            if stream != STDERR:
                self._read += len(data)
                return data
            self._text = (self._text + self._notes.feed(data))[:_MAX_TEXT]
        return None

    async def write(self, data: Buffer) -> None:
        """Send. What nobody will read any more is dropped silently."""
        await self._process.write(data)

    async def write_eof(self) -> None:
        """Send the last. What comes from the guest still comes. Safe to call twice."""
        await self._process.close_stdin()

    async def wait_closed(self) -> None:
        """Wait until the guest has let go of it; what comes meanwhile is dropped."""
        await self._process.wait()
        self.is_open = False

    @property
    def _is_read(self) -> bool:
        """True when the guest told how much it sent, and that much came: streams have no order."""
        told = self._notes.get("eof")
        return bool(_COUNT.fullmatch(told)) and self._read >= int(told)

    async def _end(self) -> None:
        self.is_open = False
        status = await self._process.wait()
        if self._read or status.code in (0, None):
            return
        if status.code == _NO_TOOL:
            kind = "sockets with a path" if self._target.path else "sockets"
            raise Refused(
                f"the guest has no tool for {kind}",
                "forward",
                hint="install perl, python3, socat or nc there",
            )
        text = self._text.decode("utf-8", "backslashreplace").strip() or str(status)
        raise RequestFailed(ECONNREFUSED, f"cannot connect to {self._target} in the guest: {text}")
