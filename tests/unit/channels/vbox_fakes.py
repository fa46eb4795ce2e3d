"""Guest control with no VirtualBox: commands are scripts of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from hostctl_channels.errors import RequestFailed
from hostctl_channels.interface import Buffer, ExitStatus
from hostctl_channels.login import Login
from hostctl_channels.vbox import Node, Piece

__all__ = ["FakeControl", "FakeSession"]

Said = Piece | ExitStatus


class FakeSession:
    """See Session. `says` is what the next command says; without an end it runs for ever."""

    additions = "0.0"

    def __init__(self, says: Sequence[Said]) -> None:
        self.is_open = True
        self.started: list[tuple[str, ...]] = []
        self.fed = bytearray()
        self.files: dict[str, bytearray] = {}
        self._says = says
        self._left: dict[int, asyncio.Queue[Said]] = {}
        self.has_started = asyncio.Event()
        self._handles: dict[int, str] = {}

    async def start(self, exe: str, argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, int]:
        self.started.append((exe, *argv))
        is_kill = "kill -s" in " ".join(argv)
        if is_kill:  # whatever runs ends
            for left in self._left.values():
                left.put_nowait(ExitStatus(None, 9))
        self._left[len(self.started)] = asyncio.Queue()
        for said in [ExitStatus(0)] if is_kill else self._says:
            self._left[len(self.started)].put_nowait(said)
        self.has_started.set()
        return len(self.started), 1000

    async def read(self, process: int) -> Said:
        return await self._left[process].get()

    async def write(self, process: int, data: Buffer, *, end: bool = False) -> None:
        self.fed += data

    async def terminate(self, process: int) -> None:
        self._left[process].put_nowait(ExitStatus(None, 9))

    async def look(self, path: str) -> Node:
        if path in self.files:
            return Node("File", len(self.files[path]), 0o640, 7.9)
        if path in ("/", "/tmp"):
            return Node("Directory", 0, 0o755, 0.0)
        if path == "/fifo":
            return Node("FIFO", 0, 0o644, 0.0)
        raise RequestFailed(2, "No such file or directory")

    async def open(self, path: str, *, write: bool, mode: int = 0) -> int:
        if write:
            self.files[path] = bytearray()
        self._handles[len(self._handles)] = path
        return len(self._handles) - 1

    async def read_file(self, file: int, size_bytes: int) -> bytes:
        data, path = self.files[self._handles[file]], self._handles[file]
        self.files[path] = data[size_bytes:]  # enough for one get
        return bytes(data[:size_bytes])

    async def write_file(self, file: int, data: Buffer) -> None:
        self.files[self._handles[file]] += data

    async def close_file(self, file: int) -> None:
        return None

    async def rename(self, source: str, target: str) -> None:
        self.files[target] = self.files.pop(source)

    async def remove(self, path: str) -> None:
        self.files.pop(path, None)


class FakeControl:
    """See GuestControl. Counts its sessions."""

    def __init__(self, *says: Said) -> None:
        self.says = says
        self.sessions: list[FakeSession] = []

    @asynccontextmanager
    async def session(self, login: Login, timeout_s: float) -> AsyncIterator[FakeSession]:
        self.sessions.append(FakeSession(self.says))
        try:
            yield self.sessions[-1]
        finally:
            self.sessions[-1].is_open = False
