"""What `qga.files` works with, over guest control: transfers that need the guest's own tools."""

from __future__ import annotations

import asyncio
from typing import Final

from ..interface import Buffer
from ..qga.agent import Status
from .control import Session
from .places import is_carried
from .process import run

__all__ = ["VboxHands"]

_MAX_PRINTED: Final = 64 * 1024  # of a script of ours: digests, facts, an error
_PIECE: Final = 1 << 20


class _Limits:
    """Of one call. Bytes go as they are, but qga.files counts in base64."""

    max_request_bytes = 2 << 20
    max_reply_bytes = 2 << 20


class VboxHands:
    """See qga.hands.Hands. For one transfer."""

    exchange = _Limits()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._runs: dict[int, asyncio.Task[Status]] = {}

    def carries(self, text: bytes) -> bool:
        """Tell whether a word or a path can be said to it; see places.is_carried."""
        return is_carried(text)

    async def start(self, path: bytes, words: tuple[bytes, ...], data: Buffer | None) -> int:
        """Start a script with all of its input; return a number for it."""
        number = len(self._runs)
        work = self._status((path, *words), data or b"")
        self._runs[number] = asyncio.get_running_loop().create_task(work)
        return number

    async def status(self, number: int) -> Status | None:
        """Return how it ended; None if it has not within half a second."""
        task = self._runs[number]
        await asyncio.wait([task], timeout=0.5)
        return task.result() if task.done() else None

    async def open(self, path: bytes, mode: str) -> int:
        """Open a file ("r", "w")."""
        return await self._session.open(path.decode(), write=mode == "w", mode=0o600)

    async def read(self, handle: int, size_bytes: int, path: bytes) -> tuple[bytes, bool]:
        """Return some bytes, and whether that was the end."""
        data = await self._session.read_file(handle, min(size_bytes, _PIECE))
        return data, not data

    async def write(self, handle: int, data: memoryview, path: bytes) -> int:
        """Write; return how many bytes were."""
        await self._session.write_file(handle, data[:_PIECE])
        return min(len(data), _PIECE)

    async def shut(self, handle: int, path: bytes) -> None:
        """Close a file."""
        await self._session.close_file(handle)

    async def end(self) -> None:
        """Leave no task behind."""
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    async def _status(self, argv: tuple[bytes, ...], data: Buffer) -> Status:
        status, out, err = await run(self._session, argv, data, _MAX_PRINTED)
        return Status(status.code, status.signal, out, err, is_truncated=False)
