"""Who has which stream ports: two for each work port that runs commands, as long as it stays ours.

The guest opens a stream port for one process at a time. What a command left behind may hold a pair
for ever; a worker that was hung up on holds its own for some milliseconds more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .errors import PortHeld, PortsBusy
from .port import Port
from .ports import STREAM, Lease, PortPool

__all__ = ["StreamSupply"]

# The first of a pair stands for both: who waits for a pair never holds half of one.
_SECOND: Final = dict(zip(STREAM[::2], STREAM[1::2], strict=True))
_SECOND_S: Final = 1.0  # for what nobody holds who asks for the first
_PAUSE_S: Final = 0.1  # when all pairs were refused by the guest, before they are tried again


class StreamSupply:
    """Pairs of stream ports for the work ports of one channel."""

    def __init__(self, ports: PortPool) -> None:
        self._ports = ports
        self._refused: set[str] = set()
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        """True while a command waits for a pair: who has an idle one gives it back."""
        return self._waiting > 0

    async def furnish(self, port: Port, timeout_s: float, reclaim: Callable[[], None]) -> None:
        """Give a work port its pair, if it has none and the machine has any.

        `reclaim` gives back the idle pairs of this process.

        Raises:
            PortsBusy: none became free in time.
        """
        while not port.streams and self._ports.has(STREAM):
            first = await self._lease(timeout_s, reclaim)
            port.streams.append(first)
            try:
                port.streams.append(await self._ports.lease([_SECOND[first.name]], _SECOND_S))
            except PortHeld:
                self.refuse(port)

    def refuse(self, port: Port) -> None:
        """Pass over this port's pair: somebody holds one of the two, in the guest or here."""
        self._refused.add(port.streams[0].name)
        port.release_streams(clean=False)

    def forgive(self) -> None:
        """Try all pairs again from now on."""
        self._refused.clear()

    async def _lease(self, timeout_s: float, reclaim: Callable[[], None]) -> Lease:
        firsts = [name for name in _SECOND if self._ports.has([name])]
        if self._refused.issuperset(firsts):
            self.forgive()
            await asyncio.sleep(_PAUSE_S)
        try:
            return await self._ports.lease(firsts, 0, unless=self._refused)
        except (PortsBusy, PortHeld):
            reclaim()
        self._waiting += 1
        try:
            return await self._ports.lease(firsts, timeout_s, unless=self._refused)
        finally:
            self._waiting -= 1
