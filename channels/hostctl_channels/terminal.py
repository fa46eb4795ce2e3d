"""A terminal in the guest, made there by a tool that it has, for one command.

Needs a channel with live streams and standard input, and nothing of the agent: guestside's
terminal.sh goes along with the request. What the guest tells of the terminal (its tool, its path,
the command's end) comes among its standard error, marked by a secret of the request's own; a guest
may lie about all three, and the worst that comes of it is a window of the wrong size.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from hostctl_guestside import session_script, terminal_script

from .errors import ChannelTimeout, HostctlError, LocalProtocolError, Refused, RemoteProtocolError
from .interface import STDERR, Buffer, Channel, Command, ExitStatus, Process
from .notes import Notes, need_live
from .telnet import Telnet

__all__ = ["NO_TERMINAL", "TOOLS", "Size", "Terminal", "open_terminal"]

TOOLS: Final = ("script", "python3", "socat", "telnetd")
NO_TERMINAL: Final = "none"  # as a tool: the command's streams as they are

_KNOWN: Final = frozenset(tool.encode() for tool in (*TOOLS, NO_TERMINAL))
_TOLD_S: Final = 30.0  # for the guest to find its tool; emulated ones stall for seconds
_MAX_EARLY: Final = 256 * 1024  # of output before the tool is told: other ports may be quicker
_TTY: Final = re.compile(rb"/dev/(pts/\d{1,9}|tty[A-Za-z0-9]{1,15}|console)")
_STATUS: Final = re.compile(rb"\d{1,3}")
_FILLER: Final = bytes(16)  # the token alone also stands in what /proc tells of our own processes
_FIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """A window, in characters."""

    rows: int = 24
    columns: int = 80

    def __post_init__(self) -> None:
        if not (0 < self.rows < 2**16 and 0 < self.columns < 2**16):
            raise LocalProtocolError(f"not a window: {self.columns} by {self.rows}")


@asynccontextmanager
async def open_terminal(
    channel: Channel, command: Command, argv: Sequence[bytes], size: Size, tools: Sequence[str]
) -> AsyncIterator[Terminal]:
    """Run `argv`, or the login shell if it is empty, at a new terminal, with `command`'s user,
    environment, folder and limit; its own words are replaced.

    Raises:
        Refused: the channel has no live streams, or the guest none of `tools`. Nothing ran.
        RemoteProtocolError: what the guest tells of its terminal makes no sense.
    """
    await need_live(channel, "a terminal")
    notes = Notes()
    session = _session(notes.token, size, command.cwd, argv)
    words = (b"sh", b"-c", b'eval "$1"', b"terminal", terminal_script(), notes.token, session)
    carrier = replace(command, argv=(*words, *(tool.encode() for tool in tools)))
    async with channel.spawn(carrier, stdin=True) as process:
        terminal = Terminal(channel, process, notes)
        await terminal._begin()
        yield terminal


class Terminal:
    """A command at a terminal in the guest. Leaving its context kills it if it still runs."""

    def __init__(self, channel: Channel, process: Process, notes: Notes) -> None:
        self._channel = channel
        self._process = process
        self._notes = notes
        self._telnet: Telnet | None = None
        self._early: list[bytes] = []
        self._wanted: Size | None = None
        self.tool = ""

    @property
    def is_real(self) -> bool:
        """False if the guest had no tool, and the command has plain streams."""
        return self.tool != NO_TERMINAL

    async def read(self) -> bytes | None:
        """Return what it shows as soon as there is any, or None at the end."""
        if self._early:
            return self._early.pop(0)
        while (piece := await self._process.read()) is not None:
            data = self._shown(*piece)
            if self._wanted is not None:
                with contextlib.suppress(HostctlError, TimeoutError):  # no size is worth the output
                    await self._fit()
            if data:
                return data
        return None

    async def write(self, data: Buffer) -> None:
        """Type. What the command will never read is dropped silently."""
        await self._process.write(self._telnet.encode(bytes(data)) if self._telnet else data)

    async def close_stdin(self) -> None:
        """End the input: of plain streams; at a real terminal it is a key, Ctrl-D."""
        if self.is_real:
            await self.write(b"\x04")
        else:
            await self._process.close_stdin()

    async def resize(self, rows: int, columns: int) -> None:
        """Give the window another size; the command is told by the guest's kernel.

        Quiet where there is no real terminal.
        """
        self._wanted = Size(rows, columns)
        await self._fit()

    async def _fit(self) -> None:
        """Give it the size that it should have, once the guest has told where it is."""
        size, path = self._wanted, self._notes.get("tty")
        if size is None or not path:
            return
        self._wanted = None
        if _TTY.fullmatch(path):
            shape = (f"{size.rows}", "cols", f"{size.columns}")
            async with asyncio.timeout(_FIT_S):
                await self._channel.exec(Command.of("stty", "-F", path, "rows", *shape))

    async def signal(self, name: str) -> None:
        """Send a signal to all that runs there; quiet if it has ended.

        Ctrl-C is a key: write it.
        """
        await self._process.signal(name)

    async def wait(self) -> ExitStatus:
        """Wait for the end; what nobody has read is dropped.

        A death by signal n is code 128 + n.
        """
        while await self.read() is not None:
            pass
        status = await self._process.wait()
        told = self._notes.get("exit")
        return ExitStatus(int(told) & 255) if _STATUS.fullmatch(told) else status

    async def _begin(self) -> None:
        """Read until the guest has told its tool."""
        try:
            async with asyncio.timeout(_TOLD_S):
                early = await self._until_told()
        except TimeoutError as err:
            raise ChannelTimeout(f"no terminal in the guest after {_TOLD_S:g} s") from err
        self.tool = self._notes.get("tool").decode("ascii")
        self._telnet = Telnet(self._notes.token + _FILLER) if self.tool == "telnetd" else None
        self._early = [data for piece in early if (data := self._plain(*piece))]

    async def _until_told(self) -> list[tuple[int, bytes]]:
        early: list[tuple[int, bytes]] = []
        while not self._notes.get("tool"):
            piece = await self._process.read()
            if piece is None or sum(len(data) for _, data in early) > _MAX_EARLY:
                text = b" ".join(data for _, data in early).decode(errors="replace").strip()
                raise RemoteProtocolError(f"no terminal in the guest: {text[-200:] or 'no word'}")
            stream, data = piece
            early.append((stream, self._notes.feed(data) if stream == STDERR else data))
        if self._notes.get("tool") == b"-":
            raise Refused(
                "the guest has no tool that makes a terminal",
                "terminal",
                hint=f"install one of {', '.join(TOOLS)} there",
            )
        if self._notes.get("tool") not in _KNOWN:
            raise RemoteProtocolError("no terminal in the guest: it tells of a tool that is none")
        return early

    def _shown(self, stream: int, data: bytes) -> bytes:
        return self._plain(stream, self._notes.feed(data) if stream == STDERR else data)

    def _plain(self, stream: int, data: bytes) -> bytes:
        return self._telnet.decode(data) if self._telnet and stream != STDERR else data


def _session(token: bytes, size: Size, cwd: bytes | None, argv: Sequence[bytes]) -> bytes:
    here = b"" if cwd is None else b"1"
    words = (token, b"%d" % size.rows, b"%d" % size.columns, here, *argv)
    return b"set -- " + b" ".join(map(_quoted, words)) + b"\n" + session_script()


def _quoted(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"
