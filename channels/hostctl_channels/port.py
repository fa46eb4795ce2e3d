"""One port in our hands: its lease, its conversation, its buffer, and the ways back to order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from .deadline import Deadline
from .errors import ChannelClosed, ChannelReset, RemoteProtocolError
from .interface import Pulse
from .ports import Lease
from .wire import NONCE_SIZE, Event, Hello, Phase, Ready, Request, Session, encode

__all__ = ["Port", "nonce"]

logger = logging.getLogger(__name__)

BUFFER: Final = 256 * 1024  # a few of the 32 KiB pieces the guest's driver makes
VERSIONS: Final = range(1, 2)
_REPEAT_S = 0.4  # a greeting can be lost while the agent reopens its port: repeat it
_REPEATS = 3
_FEW = 2  # of a worker that is probably busy; one that is not answers in a tenth of a second
_PATIENCE = 3  # so many times the next try takes twice as long: 10 s
_GAPS_S = (
    0.25,
    0.5,
    1.0,
)  # how long to hang up, so that a reader in the guest sees the end of its body


def nonce() -> bytes:
    """Return a fresh name for a request, which also ends its raw bodies."""
    return os.urandom(NONCE_SIZE // 2).hex().encode()


class Port:
    """A worker of the agent.

    After any error but a GuestError it is of no more use: `release(clean=False)`.
    """

    def __init__(self, lease: Lease, pulse: Pulse) -> None:
        self.lease = lease
        self.epoch = pulse.epoch()
        self.session = Session()
        self.nonce = b""
        self.streams: list[Lease] = []  # where its commands' output comes
        self.holds_streams = False  # the worker has left them open since its last command
        self._pulse = pulse
        self._buffer = bytearray(BUFFER)

    async def greet(
        self, limit_s: float, restart: Callable[[str], Awaitable[None]] | None
    ) -> Hello:
        """Make the agent answer on this port, whatever it was left in.

        `restart` ends the port's worker from outside; it is used when the last holder died, or when
        hanging up does not help. Of a worker that was put back to an earlier moment, silence means
        that it is busy with what was asked then. Without `restart` each try takes longer than the
        last: a guest that is only slow answers in the end, where it would always be a nonce late,
        and drown in greetings.

        Raises:
            ChannelTimeout: no answer in `limit_s`.
            RemoteProtocolError: the agent is of a version we do not speak.
        """
        async with Deadline(self._pulse, limit_s, f"port {self.lease.name}"):
            if self.lease.dirty and restart:
                await restart(self.lease.name)
            if self.lease.is_restored and restart:
                if answer := await self._try_greeting(_FEW):
                    return _supported(answer)
                await restart(self.lease.name)
                await self.lease.reconnect(_GAPS_S[0])
            for attempt in range(1 << 30):
                repeats = _REPEATS << (0 if restart else min(attempt, _PATIENCE))
                if answer := await self._try_greeting(repeats):
                    return _supported(answer)
                gap_s = _GAPS_S[min(attempt, len(_GAPS_S) - 1)]
                logger.debug("%s: no greeting, hanging up for %s s", self.lease.name, gap_s)
                if attempt and restart:
                    await restart(self.lease.name)
                await self.lease.reconnect(gap_s)
        raise AssertionError("unreachable")

    async def _try_greeting(self, repeats: int) -> Hello | None:
        name = nonce()
        for _ in range(repeats):
            try:
                async with asyncio.timeout(_REPEAT_S):
                    await self._send(self.session.greet(name))
                    while True:
                        # Whole: behind it may be half of the answer to a greeting before.
                        for event in list(await self.receive()):
                            if isinstance(event, Hello):
                                return event
            except TimeoutError:
                continue
            except (ChannelReset, RemoteProtocolError, ChannelClosed):
                return None
        return None

    def deadline(self, limit_s: float | None, what: object) -> Deadline:
        """Return the end of a wait here, cut too if the timeline was cut since we connected."""
        return Deadline(self._pulse, limit_s, what, epoch=self.epoch)

    async def ask(self, request: Request) -> None:
        """Send a request; its body, if any, is the caller's to send."""
        self.nonce = nonce()
        logger.debug("%s > %s %s", self.lease.name, request.kind, request.words)
        await self._send(self.session.ask(request, self.nonce))

    async def _send(self, buffers: tuple[bytes, ...]) -> None:
        for buffer in buffers:
            await self.lease.link.send(buffer)

    async def tell(self, request: Request) -> None:
        """Send a line that belongs to the request under way and has no answer of its own."""
        await self._send(encode(request, self.nonce))

    async def receive(self) -> Iterator[Event]:
        """Wait for bytes; return what they mean. To be consumed whole, at once.

        Raises:
            ChannelClosed: QEMU is gone.
            ChannelReset: the agent has begun anew.
        """
        size = await self.lease.link.receive_into(self._buffer)
        if not size:
            raise ChannelClosed(
                "the machine closed the line", hint="see its state with: hostctl list"
            )
        return self._checked(size)

    def _checked(self, size: int) -> Iterator[Event]:
        for event in self.session.feed(self._buffer, size):
            if isinstance(event, Ready):
                raise ChannelReset("the agent in the guest began anew")
            yield event

    async def events(self) -> AsyncIterator[Event]:
        """Yield events until the request under way has its answer."""
        while self.session.phase is Phase.BUSY:
            for event in await self.receive():
                yield event

    async def answer(self) -> Event:
        """Wait for the event that ends the request under way; those before it are dropped."""
        last: Event = Ready()
        while self.session.phase is Phase.BUSY:
            for event in await self.receive():
                last = event
        return last

    @property
    def is_idle(self) -> bool:
        """True while it is ours and nothing is under way."""
        return self.session.phase is Phase.IDLE and self.lease.is_held

    @property
    def is_fresh(self) -> bool:
        """True while the guest's timeline has not been cut since we connected, and nothing is under
        way.
        """
        return self.is_idle and self.epoch == self._pulse.epoch()

    def release(self, *, clean: bool) -> None:
        """Give the port back, with its streams; unclean means its worker may be stuck."""
        self.release_streams(clean=clean and self.is_fresh)
        self.lease.release(clean=clean)

    def release_streams(self, *, clean: bool) -> None:
        """Give the streams back; the worker lets go of them when it is greeted or asked anew.

        Unclean means that somebody in the guest may still write there.
        """
        self.holds_streams = False
        while self.streams:
            self.streams.pop().release(clean=clean)


def _supported(answer: Hello) -> Hello:
    if answer.version not in VERSIONS:
        raise RemoteProtocolError(
            f"the agent speaks protocol {answer.version}", hint="update agent.sh in the guest"
        )
    return answer
