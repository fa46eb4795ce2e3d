"""What guest control offers, as a back end hands it over: sessions, and what is done in them.

All errors are this package's. VirtualBox's own types and numbers are unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from ..interface import Buffer, ExitStatus
from ..login import Login

__all__ = ["Controlling", "GuestControl", "Node", "Piece", "Session"]


class Piece(NamedTuple):
    """Output of a command."""

    stream: int
    data: bytes


class Node(NamedTuple):
    """What is at a path."""

    type: str  # "File", "Directory", "FIFO"…, VirtualBox's FsObjType
    size_bytes: int
    mode: int | None  # None where the guest has no such thing
    mtime_s: float


class Session(Protocol):
    """A user who is logged in. Paths and words are text, for that is what VirtualBox carries.

    Every call may raise:

    ChannelClosed: the session is over: the guest's service has ended, or VirtualBox.
    ChannelTimeout: the guest did not answer in time.
    """

    additions: str
    """The version of the Guest Additions, as the guest tells it."""

    @property
    def is_open(self) -> bool:
        """False once it is known to be over."""

    async def start(self, exe: str, argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, int]:
        """Start a program; return our number for it and its pid. `argv` begins with its own name.

        Raises SpawnFailed.
        """

    async def read(self, process: int) -> Piece | ExitStatus:
        """Wait for output, or for the end. Must be called until then, or the command waits."""

    async def write(self, process: int, data: Buffer, *, end: bool = False) -> None:
        """Write to standard input; `end` closes it. Waits until the guest has taken all."""

    async def terminate(self, process: int) -> None:
        """Kill a command, not what it started, and forget it."""

    async def look(self, path: str) -> Node:
        """Return what is at a path, links followed. Raises RequestFailed."""

    async def open(self, path: str, *, write: bool, mode: int = 0) -> int:
        """Open a file; with `write` a new one. Raises RequestFailed."""

    async def read_file(self, file: int, size_bytes: int) -> bytes:
        """Return at most so many bytes, none at the end. Raises RequestFailed."""

    async def write_file(self, file: int, data: Buffer) -> None:
        """Write all of it. Raises RequestFailed."""

    async def close_file(self, file: int) -> None:
        """Close a file. Raises RequestFailed: what was written may not be in it."""

    async def rename(self, source: str, target: str) -> None:
        """Rename a file over what is there. Raises RequestFailed."""

    async def remove(self, path: str) -> None:
        """Remove a file. Raises RequestFailed."""


class GuestControl(Protocol):
    """Guest control of one machine."""

    def session(self, login: Login, timeout_s: float) -> AbstractAsyncContextManager[Session]:
        """Log in; leaving the context ends the session and all that runs in it.

        Raises:
            LoginFailed: the guest knows no such user, or another password.
            ChannelTimeout: no session within `timeout_s`, whatever was tried again meanwhile.
            ChannelClosed: the machine does not run, or VirtualBox cannot be reached.
        """


@runtime_checkable
class Controlling(Protocol):
    """An Endpoint that is no line, but guest control."""

    def control(self) -> GuestControl:
        """Return it."""
