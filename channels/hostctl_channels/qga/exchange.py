"""How a request reaches the guest agent and its reply comes back: over a socket, or another's hand.

A chardev's socket serves one client at a time. The line is leased by file lock, given up a moment
after the last request, and now and then by one who is busy for long, so that others get a turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final, Protocol, runtime_checkable

from ..deadline import Deadline, Timeline
from ..errors import ChannelClosed, ChannelTimeout
from ..interface import Pulse
from ..ports import GUEST_AGENT, Lease, PortPool
from .wire import Conversation, Request

__all__ = ["Exchange", "Exchanging", "SocketExchange"]

logger = logging.getLogger(__name__)

_BUFFER: Final = 256 * 1024
_PORT_S: Final = 60.0  # waiting for others to give the line up
# An idle line stays ours that long: an agent whose host hung up looks again only every 100 ms.
_LINGER_S: Final = 0.3
_TURN_S: Final = 2.0  # held without a break; then others get a chance,
_BREAK_S: Final = 0.12  # which is a little more than the longest pause between their looks
_REPEAT_S: Final = (0.5, 1.0, 2.0)  # between syncs that nobody answers: a guest that still boots


class Exchange(Protocol):
    """Carries requests to one guest agent, one at a time; safe for many tasks."""

    @property
    def max_request_bytes(self) -> int:
        """The longest request it carries; `ask` refuses a longer one."""

    @property
    def max_reply_bytes(self) -> int:
        """The longest reply it carries."""

    @property
    def is_warm(self) -> bool:
        """Tell whether a request would find the line in order; see Channel."""

    async def ask(self, request: Request, timeout_s: float) -> bytes:
        """Return the reply's line, nothing older. `timeout_s` does not count waiting for our turn.

        Raises:
            ChannelTimeout: no reply; the next request finds the line in order again.
            ChannelReset: the guest's timeline was cut meanwhile.
            ChannelClosed, PortsBusy: there is no line.
            RemoteProtocolError: no reply came, or one beyond the request's limit.
            ReplyTooLong: the reply is beyond what is carried here.
        """

    async def close(self) -> None:
        """Give the line up. Safe to call twice; the next request takes it again."""


@runtime_checkable
class Exchanging(Protocol):
    """An Endpoint that is no line, but carries requests to a guest agent."""

    def exchange(self, pulse: Pulse) -> Exchange:
        """Return what carries them."""


class SocketExchange:
    """See Exchange. Over the Unix socket of a chardev."""

    # QEMU's JSON parser takes tokens of 64 MiB (json-lexer.c, MAX_TOKEN_SIZE).
    max_request_bytes = 48 << 20
    max_reply_bytes = 64 << 20

    def __init__(self, ports: PortPool, pulse: Pulse, name: str = GUEST_AGENT) -> None:
        self._ports = ports
        self._pulse = pulse
        self._name = name
        self._line: _Line | None = None
        self._turn = asyncio.Lock()
        self._is_closing = False
        self._linger: asyncio.TimerHandle | None = None

    @property
    def is_warm(self) -> bool:
        """See Exchange."""
        return self._line is not None and self._line.epoch == self._pulse.epoch()

    async def ask(self, request: Request, timeout_s: float) -> bytes:
        """See Exchange."""
        async with self._turn:
            self._stop_lingering()
            line = await self._taken(timeout_s)
            timeline = Timeline(self._pulse, request.rpc)
            try:
                async with Deadline(self._pulse, timeout_s, request.rpc):
                    reply = await line.ask(request)
                timeline.check()  # it may be what a restored agent says of a request's second half
                return reply
            finally:
                if line.talk.is_idle and not self._is_closing:
                    self._stay()
                else:
                    self._hang_up()

    async def close(self) -> None:
        """See Exchange."""
        if self._turn.locked():
            self._is_closing = True  # whoever talks hangs up at the end
        else:
            self._hang_up()

    async def _taken(self, timeout_s: float) -> _Line:
        """Return our line, synced: the one we have, if it is good, else a new one."""
        now = asyncio.get_running_loop().time()
        if self._line and self._line.epoch != self._pulse.epoch():
            self._hang_up()
        if self._line and now - self._line.since > _TURN_S:
            self._hang_up()
            await asyncio.sleep(_BREAK_S)
        if self._line is None:
            self._line = await self._open(timeout_s)
        return self._line

    async def _open(self, timeout_s: float) -> _Line:
        epoch = self._pulse.epoch()
        line = _Line(await self._ports.lease((self._name,), _PORT_S), epoch)
        try:
            async with Deadline(self._pulse, timeout_s, "sync with the guest agent"):
                await line.sync()
        except ChannelTimeout as err:
            line.lease.release(clean=False)
            err.hint = "is qemu-guest-agent running in the guest, and nobody else at its socket?"
            raise
        except BaseException:
            line.lease.release(clean=False)
            raise
        return line

    def _stay(self) -> None:
        self._linger = asyncio.get_running_loop().call_later(_LINGER_S, self._hang_up)

    def _stop_lingering(self) -> None:
        if self._linger:
            self._linger.cancel()
            self._linger = None

    def _hang_up(self) -> None:
        self._stop_lingering()
        self._is_closing = False
        if self._line:
            self._line.lease.release(clean=self._line.talk.is_idle)
            self._line = None


class _Line:
    """A leased connection and what is said on it."""

    def __init__(self, lease: Lease, epoch: int) -> None:
        self.lease = lease
        self.epoch = epoch
        self.since = asyncio.get_running_loop().time()
        self.talk = Conversation()
        self._buffer = bytearray(_BUFFER)

    async def sync(self) -> None:
        """Ask for a number until the agent says it; what it still has for others is dropped."""
        for attempt in range(1 << 30):
            await self.lease.link.send(self.talk.sync(int.from_bytes(os.urandom(6), "big")))
            try:
                async with asyncio.timeout(_REPEAT_S[min(attempt, len(_REPEAT_S) - 1)]):
                    while not self.talk.is_synced:
                        await self._receive()
            except TimeoutError:
                logger.debug("the guest agent is silent: syncing again")
            else:
                return

    async def ask(self, request: Request) -> bytes:
        logger.debug("> %s", request.text[:120])
        text = self.talk.ask(request)
        sending = asyncio.ensure_future(self.lease.link.send(text)) if len(text) > _BUFFER else None
        try:
            if sending is None:
                await self.lease.link.send(text)
            # Read while we send: an agent that talks instead of listening must not block us both.
            while (reply := await self._receive()) is None:
                pass
        finally:
            if sending:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        logger.debug("< %s", reply[:120])
        return reply

    async def _receive(self) -> bytes | None:
        size = await self.lease.link.receive_into(self._buffer)
        if not size:
            raise ChannelClosed(
                "the machine closed the guest agent's line",
                hint="see its state with: hostctl list",
            )
        return self.talk.feed(memoryview(self._buffer)[:size])
