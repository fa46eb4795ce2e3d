"""One kind of wait: it ends in time, and when the guest's timeline is cut under it."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

from .errors import ChannelReset, ChannelTimeout
from .interface import Pulse

__all__ = ["Deadline", "Timeline"]

_LOOK_S = 0.2  # how often the pulse and the limit are looked at: two stat calls


class Deadline:
    """An async context.

    `limit_s` counts only while the machine runs; None waits for ever, for the pulse's sake. `epoch`
    is that of the connection it watches, where there is one; else the present one. `what` is made
    text only when the wait has failed.

    Raises on leaving:
        ChannelTimeout: the limit passed.
        ChannelReset: the epoch changed.
    """

    def __init__(
        self, pulse: Pulse, limit_s: float | None, what: object, *, epoch: int | None = None
    ) -> None:
        self._pulse = pulse
        self._limit_s = limit_s
        self._what = what
        self._epoch = pulse.epoch() if epoch is None else epoch
        self._cut = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)  # set off by _look: one timer a wait, not two
        await self._timeout.__aenter__()
        self.extend()
        self._look_later()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as err:
            raise self._verdict() from err

    def extend(self) -> None:
        """Start the limit anew: something moved."""
        self._end = math.inf if self._limit_s is None else self._loop.time() + self._limit_s

    def _look(self) -> None:
        self._cut = self._pulse.epoch() != self._epoch
        if self._pulse.suspended():
            self.extend()
        if self._cut or self._loop.time() >= self._end:
            self._timeout.reschedule(self._loop.time())
        else:
            self._look_later()

    def _look_later(self) -> None:
        self._handle = self._loop.call_at(min(self._loop.time() + _LOOK_S, self._end), self._look)

    def _verdict(self) -> ChannelReset | ChannelTimeout:
        if self._cut:
            return _reset(self._what)
        return ChannelTimeout(f"{self._what}: the guest did not answer within {self._limit_s:g} s")


class Timeline:
    """The guest's timeline as it is now, for what is made of several requests."""

    def __init__(self, pulse: Pulse, what: str) -> None:
        self._pulse = pulse
        self._epoch = pulse.epoch()
        self._what = what

    @property
    def is_cut(self) -> bool:
        """True for ever once the machine was restored, reset or stopped."""
        return self._pulse.epoch() != self._epoch

    def check(self) -> None:
        """Raise ChannelReset if the timeline was cut."""
        if self.is_cut:
            raise _reset(self._what)


def _reset(what: object) -> ChannelReset:
    return ChannelReset(f"{what}: the machine was restored, reset or stopped meanwhile")
