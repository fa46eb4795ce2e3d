"""A command that runs in the guest: its streams, its end, and the ways it can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from .errors import (
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    GuestError,
    HostctlError,
    LocalProtocolError,
    Refused,
    SpawnFailed,
)
from .interface import STDERR, STDOUT, Buffer, Command, ExitStatus, Pulse
from .links.interface import Link
from .port import Port
from .wire import Begin, Data, Exit, Failure, Started, StreamDecoder, encode_end, encode_stdin

__all__ = ["AgentProcess", "Strike"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

Strike = Callable[[str, str], Awaitable[bool]]
"""Send a signal to what runs on a port.

False if nothing does. Signal "0" asks whether its worker lives.
"""

# Pieces of output kept while nobody reads: backpressure reaches the guest after that.
_QUEUE: Final = 16
# Two of the guest's pieces; small enough for the allocator to have it at hand, command by command.
_BUFFER: Final = 64 * 1024
# How often a long command's worker is asked for a sign of life, and how many answers may fail to
# come, while the machine runs, before the agent counts as dead.
_BEAT_S: Final = 5.0
_SILENT_BEATS: Final = 6
# On top of the guest's own timeout (TERM, 2 s, KILL), before the host steps in. A guest that is
# interpreted by a busy host needed more than 10.
_GRACE_S: Final = 30.0
# To kill a command and see it end.
_END_S: Final = 5.0


class AgentProcess:
    """See interface.Process. Made by AgentChannel.spawn, which owns the ports."""

    def __init__(
        self,
        port: Port,
        command: Command,
        pulse: Pulse,
        strike: Strike,
    ) -> None:
        self._port = port
        self._were_held = port.holds_streams
        self._command = command
        self._pulse = pulse
        self._strike = strike
        self._output: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(_QUEUE)
        self._exit: ExitStatus | None = None
        self._error: HostctlError | None = None
        self._received = self._seen = 0  # bytes of output
        self._over = False  # nothing more will come
        # Each is set at the end too, whatever the end is.
        self._arrived = asyncio.Event()  # something lies in `_output`
        self._accepted = asyncio.Event()
        self._started = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # by error
        self._wants_input = self._input_begun = self._input_ended = False
        self._frame: asyncio.Task[None] | None = None  # of standard input, being sent
        self._tasks: list[asyncio.Task[None]] = []
        self._beat_begins: asyncio.TimerHandle | None = None

    # --- for the channel ----------------------------------------------------------------------

    def start(self, *, stdin: bool) -> None:
        """Begin to listen; the request has been sent."""
        self._wants_input = stdin
        self._spawn(self._follow())
        # A short command is over before a task for this would be worth its price.
        self._beat_begins = asyncio.get_running_loop().call_later(
            _BEAT_S, lambda: self._spawn(self._beat())
        )
        if self._command.timeout_s is not None:
            self._spawn(self._enforce(self._command.timeout_s))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    @property
    def is_accepted(self) -> bool:
        """True when there is nothing to wait for: no streams to open, or they are open."""
        return self._were_held or not self._port.streams

    async def accepted(self) -> None:
        """Wait until the agent has opened both streams, which it does before it forks.

        Raises SpawnFailed.
        """
        await self._accepted.wait()
        self._check()

    async def finish(self) -> bool:
        """End the command if it runs, release the worker; tell whether its port is in order."""
        clean = self._over and self._exit is not None and not self._input_begun
        if not clean:
            clean = await self._end()
        if self._beat_begins:
            self._beat_begins.cancel()
        await _cancel([*self._tasks, self._frame] if self._frame else self._tasks)
        return clean

    async def _end(self) -> bool:
        try:
            async with asyncio.timeout(2 * _END_S):
                if not self._is_ended:
                    await self._kill()
                return await self._settle()
        except (HostctlError, TimeoutError) as err:
            logger.debug("%s: could not be ended: %s", self._command, err)
            return False

    async def _settle(self) -> bool:
        """Drain what is left; true if the command's end was seen and its worker is idle again."""
        with contextlib.suppress(HostctlError):
            await self._drain()
        if isinstance(self._error, GuestError):
            return True  # the guest refused: nothing ran
        if self._error:
            return False
        await self._end_input()
        return True

    async def _kill(self) -> None:
        for _ in range(20):  # it may not have begun yet
            if await self._strike(self._port.lease.name, "KILL"):
                return
            if self._is_ended:
                return
            await asyncio.sleep(0.05)

    @property
    def _is_ended(self) -> bool:
        return self._exit is not None or self._error is not None

    # --- pumps --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Listen to the worker and both streams until all have ended; an error ends them all."""
        create = asyncio.get_running_loop().create_task
        pairs = zip((STDOUT, STDERR), self._port.streams, strict=False)
        pumps = [create(self._pump(number, lease.link)) for number, lease in pairs]
        for each in pumps:
            each.add_done_callback(self._pumped)
        try:
            async with self._port.deadline(None, self._command):
                await self._listen()
                for pump in pumps:
                    await pump
        except HostctlError as err:
            self._fail(err)
        finally:
            self._over = True
            for event in (self._arrived, self._accepted, self._started):
                event.set()
            await _cancel(pumps)

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and isinstance(error := pump.exception(), HostctlError):
            self._fail(error)

    def _fail(self, error: HostctlError) -> None:
        """End everything by an error."""
        self._error = self._error or error
        if not self._broken.done():
            self._broken.set_result(None)
        if asyncio.current_task() is not self._tasks[0]:
            self._tasks[0].cancel()

    async def _pump(self, number: int, link: Link) -> None:
        decoder = StreamDecoder(self._port.nonce, begun=self._were_held)
        buffer = bytearray(_BUFFER)
        while not decoder.ended:
            size = await link.receive_into(buffer)
            if not size:
                raise ChannelReset(f"{self._command}: the machine closed the line")
            for view in decoder.feed(buffer, size):
                await self._keep(number, view)
            if decoder.begun:
                self._accepted.set()

    async def _keep(self, number: int, view: memoryview) -> None:
        self._received += len(view)
        await self._output.put((number, bytes(view)))
        self._arrived.set()

    async def _listen(self) -> None:
        stream = 0
        async for event in self._port.events():
            match event:
                case Started():
                    self._input_begun = True
                    self._started.set()
                case Begin(number):
                    stream = number
                case Data(view):
                    await self._keep(stream, view)
                case Exit():
                    self._exit = _status(event)
                    self._port.holds_streams = event.holds_streams
                    self._started.set()
                case Failure(errno, text):
                    raise SpawnFailed(errno, f"{self._command}: {text}")
                case _:
                    pass

    async def _beat(self) -> None:
        """Notice what no answer will ever tell: a dead agent, a stream without end."""
        silent = 0
        while silent < _SILENT_BEATS:
            await asyncio.sleep(_BEAT_S)
            if not self._pulse.suspended():
                silent = 0 if await self._moves() else silent + 1
        self._fail(ChannelTimeout(f"{self._command}: no sign of life from the guest"))

    async def _moves(self) -> bool:
        seen, self._seen = self._seen, self._received
        if self._received != seen or self._output.full():
            return True
        # When the exit comes, all that was ever written to the streams lies on the host.
        return self._exit is None and await self._alive()

    async def _enforce(self, limit_s: float) -> None:
        """Step in when the guest does not keep the command's timeout."""
        left_s = limit_s + _GRACE_S
        while left_s > 0:
            nap_s = min(left_s, _BEAT_S)
            await asyncio.sleep(nap_s)
            left_s -= 0 if self._pulse.suspended() else nap_s
        self._fail(ChannelTimeout(f"{self._command}: still runs {_GRACE_S:g} s after its timeout"))

    async def _alive(self) -> bool:
        try:
            if await self._strike(self._port.lease.name, "0"):
                return True
        except Refused:
            return True  # nobody could be asked
        except ChannelError:
            return False
        self._fail(ChannelReset(f"{self._command}: its worker in the guest is gone"))
        return True

    # --- for the user -------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """See Process."""
        while self._output.empty():
            if self._over:
                self._check()
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._output.get_nowait()  # after the last await: a cancelled read loses nothing

    async def write(self, data: Buffer) -> None:
        """See Process."""
        await self._input_open()
        for line, piece in encode_stdin(memoryview(data).cast("B"), self._port.nonce):
            await self._frame_sent()
            if self._is_ended:
                return
            # A frame once begun is sent whole, even if the writer is cancelled: the guest counts.
            self._frame = asyncio.create_task(self._send_frame(line, piece))
            await asyncio.shield(self._frame)

    async def _send_frame(self, line: bytes, piece: memoryview) -> None:
        await self._send(line)
        await self._send(piece)

    async def _frame_sent(self) -> None:
        if self._frame:
            await asyncio.shield(self._frame)

    async def close_stdin(self) -> None:
        """See Process."""
        await self._input_open()
        if not self._is_ended:
            await self._end_input()

    async def _end_input(self) -> None:
        """Send the one frame that ends standard input and lets the worker go on, if it waits for
        one.
        """
        await self._frame_sent()
        if self._input_begun and not self._input_ended:
            self._input_ended = True
            await self._send(encode_end(self._port.nonce))

    async def _input_open(self) -> None:
        if not self._wants_input:
            raise LocalProtocolError(f"{self._command}: was started without standard input")
        await self._started.wait()

    async def _send(self, data: Buffer) -> None:
        await _first(self._port.lease.link.send(data), self._broken)
        self._check()

    def _check(self) -> None:
        if self._error:
            raise self._error

    async def signal(self, name: str) -> None:
        """See Process."""
        for _ in range(40):  # between the request and the fork there is nothing to signal yet
            if self._is_ended or await self._strike(self._port.lease.name, name):
                return
            await asyncio.sleep(0.05)

    async def wait(self) -> ExitStatus:
        """See Process."""
        await self._drain()
        assert (
            self._exit is not None
        )  # the pumps end only with it, or with an error, which was raised
        return self._exit

    async def _drain(self) -> None:
        while await self.read():
            pass


async def _first(own: Coroutine[Any, Any, T], *others: asyncio.Future[Any]) -> T | None:
    """Wait for the first to end.

    Return what `own` gave if it did. Only `own` is cancelled if it did not.
    """
    task = asyncio.ensure_future(own)
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel those still at work, and wait for them."""
    tasks = [task for task in tasks if not task.done()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)


def _status(event: Exit) -> ExitStatus:
    user_s, system_s = event.times_s or (None, None)
    code = None if event.signal else event.code
    return ExitStatus(
        code, event.signal or None, event.timed_out, user_s, system_s, event.max_rss_bytes
    )
