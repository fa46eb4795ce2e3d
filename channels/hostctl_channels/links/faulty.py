"""A link that fails as it is told; it ships, so that any channel can be tested on a bad line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ChannelClosed
from ..interface import Buffer
from .interface import Link

__all__ = ["Faults", "FaultyLink"]


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Positions count the bytes of one direction since the link was made."""

    piece_bytes: int | None = None  # the most that is received at once
    delay_s: float = 0.0  # before anything is received or sent
    cut_receive_at: int | None = None  # the line ends after so many bytes received
    cut_send_at: int | None = None  # the line ends after so many bytes sent
    is_silent: bool = False  # a cut is not told: sent bytes vanish, nothing more is received
    garbage: Mapping[int, bytes] = field(default_factory=dict)  # inserted into what is received


class FaultyLink:
    """A link over another one, which it owns."""

    def __init__(self, link: Link, faults: Faults) -> None:
        self._link = link
        self._faults = faults
        self._garbage = sorted(faults.garbage.items())
        self._received = self._sent = 0
        self._closed = asyncio.Event()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        await self._delay()
        if self._garbage and self._garbage[0][0] <= self._received:
            _, text = self._garbage.pop(0)
            buffer[: len(text)] = text
            return len(text)
        most = self._most(len(buffer))
        if not most:
            return await self._end()
        piece = bytearray(most)
        size = await self._link.receive_into(piece)
        buffer[:size] = piece[:size]
        self._received += size
        return size

    async def send(self, data: Buffer) -> None:
        """See Link."""
        await self._delay()
        view = memoryview(data).cast("B")
        cut = self._faults.cut_send_at
        if cut is None or self._sent + len(view) <= cut:
            self._sent += len(view)
            return await self._link.send(view)
        left = max(0, cut - self._sent)
        self._sent = cut
        await self._link.send(view[:left])
        if not self._faults.is_silent:
            self._link.close()
            raise ChannelClosed("the line broke: cut as told")

    def close(self) -> None:
        """See Link."""
        self._closed.set()
        self._link.close()

    def _most(self, size: int) -> int:
        """Return how much may be received before something is due."""
        marks = [at for at, _ in self._garbage[:1]]
        if self._faults.cut_receive_at is not None:
            marks.append(self._faults.cut_receive_at)
        room = min([size, *(at - self._received for at in marks)])
        return min(room, self._faults.piece_bytes or room)

    async def _end(self) -> int:
        if self._faults.is_silent:
            await self._closed.wait()
        else:
            self._link.close()
        return 0

    async def _delay(self) -> None:
        if self._faults.delay_s:
            await asyncio.sleep(self._faults.delay_s)
