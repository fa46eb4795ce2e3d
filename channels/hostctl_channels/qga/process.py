"""A command that the guest agent runs: no live streams, all output at the end.

Followed by asking for it, less and less often; killed through the agent when nobody wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from ..deadline import Deadline, Timeline
from ..errors import (
    ChannelReset,
    ChannelTimeout,
    HostctlError,
    LocalProtocolError,
    OutputTooLarge,
    Refused,
    ReplyTooLong,
    RequestFailed,
    SpawnFailed,
)
from ..interface import STDERR, STDOUT, Buffer, Capability, Command, ExitStatus, Pulse
from .agent import MAX_CAPTURE, Agent, Status
from .hands import Hands
from .script import SLAY, Call, Oops, call_of, script_call

__all__ = ["MAX_INPUT", "QgaProcess", "Spool", "run"]

Spool = Callable[[Buffer], Awaitable[bytes]]
"""Writes bytes to a new file of the guest; returns its path."""

logger = logging.getLogger(__name__)

# Of standard input, which is there whole before the command begins, here and in the guest.
MAX_INPUT: Final = 16 << 20
_ENVELOPE: Final = 8192  # of a request, for our own script and JSON's words
_ESCAPED: Final = 6  # bytes that one may become in JSON, at worst
# The first pause before asking, and how it grows: a tenth of the command's age so far, so that a
# command is known to have ended 10 % late, at most half a second.
_FIRST_S: Final = 0.004
_SHARE: Final = 0.1
_LONGEST_S: Final = 0.5
_TERM_S: Final = 2.0  # between TERM and KILL, as our own agent does
_STRIKE_S: Final = 60.0  # to send a signal, to a guest under load
_END_S: Final = 10.0  # to kill a command and see it end
_ENOENT, _EACCES, _ENOEXEC = 2, 13, 8


async def run(agent: Hands, call: Call, timeline: Timeline) -> Status:
    """Run a short program of our own to its end. One that never ends is the caller's to leave."""
    pid = await agent.start(*call)

    async def ask() -> Status | None:
        timeline.check()
        return await agent.status(pid)

    return await _end_of(ask)


async def _end_of(ask: Callable[[], Awaitable[Status | None]]) -> Status:
    """Ask until there is an answer, with pauses that grow with what it has taken so far."""
    loop = asyncio.get_running_loop()
    begin, nap_s = loop.time(), _FIRST_S
    while True:
        await asyncio.sleep(nap_s)
        if (status := await ask()) is not None:
            return status
        nap_s = min(max(_FIRST_S, _SHARE * (loop.time() - begin)), _LONGEST_S)


class QgaProcess:
    """See interface.Process. Made by QgaChannel.spawn."""

    def __init__(self, agent: Agent, command: Command, pulse: Pulse, spool: Spool) -> None:
        self._agent = agent
        self._spool = spool
        self._command = command
        self._pulse = pulse
        self._timeline = Timeline(pulse, str(command))
        self._oops = Oops()
        self._input: bytearray | None = None
        self._pid: int | None = None
        self._starting: asyncio.Future[int] | None = None
        self._started = asyncio.Event()
        self._timed_out = False
        self._pieces: list[tuple[int, bytes]] = []
        self._result: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    # --- for the channel ------------------------------------------------------------------------

    def collect(self) -> None:
        """Wait with the start for all of standard input; see `write`."""
        self._input = bytearray()

    async def start(self, data: Buffer | None = None) -> None:
        """Start it. Raises SpawnFailed; a program that is not there ends as in a shell, 127."""
        if data is not None and len(data) > MAX_INPUT:
            raise self._input_too_large()
        spooled = None
        if data and len(data) > self._carried:
            spooled, data = await self._spool(data), None
        call = call_of(self._command, data, self._oops, spooled)
        self._starting = asyncio.ensure_future(self._agent.start(*call))
        try:
            # Shielded: who is cancelled now must still learn the pid, to kill it.
            self._pid = await asyncio.shield(self._starting)
        except RequestFailed as err:
            self._not_started(err)
        finally:
            self._started.set()
        if not self._result.done():
            self._spawn(self._follow(self._pid or 0))
            if self._command.timeout_s is not None:
                self._spawn(self._enforce(self._command.timeout_s))

    def _not_started(self, err: RequestFailed) -> None:
        """Tell it as a shell would, or raise what else it is."""
        code = {_ENOENT: 127, _EACCES: 126, _ENOEXEC: 126}.get(err.errno or 0)
        if code is None:
            raise SpawnFailed(err.errno or 5, f"{self._command}: {err.message}") from err
        text = f"{self._command}: {err.strerror}\n".encode()
        self._settle(Status(code, None, b"", text, is_truncated=False))

    async def finish(self) -> None:
        """Kill it if it runs."""
        for task in self._tasks[1:]:
            task.cancel()
        if self._starting is not None and not self._result.done():
            try:
                async with asyncio.timeout(_END_S):
                    await self._kill(self._starting)
            except (HostctlError, TimeoutError) as err:
                logger.debug("%s: could not be ended: %s", self._command, err)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._result.done() and not self._result.cancelled():
            self._result.exception()  # whoever waited has seen it
        self._result.cancel()

    async def _kill(self, starting: asyncio.Future[int]) -> None:
        self._pid = await starting
        await self._strike("KILL")
        if self._tasks:
            await asyncio.wait([self._result])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    # --- following ------------------------------------------------------------------------------

    async def _follow(self, pid: int) -> None:
        try:
            status = await _end_of(lambda: self._ask(pid))
            if error := self._oops.error(status.code, status.stderr, str(self._command)):
                raise error
            self._settle(status)
        except HostctlError as err:
            self._fail(err)

    async def _ask(self, pid: int) -> Status | None:
        self._timeline.check()
        try:
            return await self._agent.status(pid)
        except ReplyTooLong as err:
            raise OutputTooLarge(
                f"{self._command}: printed more than can be carried: {err}",
                hint="write it to a file and get that",
            ) from err
        except RequestFailed as err:
            if "pid" not in err.message:
                raise
            raise ChannelReset(
                f"{self._command}: the guest agent began anew, or somebody else took its status"
            ) from err

    async def _enforce(self, limit_s: float) -> None:
        """Keep the command's timeout, from here: the agent has none. It counts while it runs."""
        for name, nap_s in (("TERM", limit_s), ("KILL", _TERM_S), ("", _END_S)):
            await self._nap(nap_s)
            if not name:
                self._fail(ChannelTimeout(f"{self._command}: still runs {_END_S:g} s after KILL"))
                return
            self._timed_out = True
            with contextlib.suppress(HostctlError):
                await self._strike(name)

    async def _nap(self, left_s: float) -> None:
        while left_s > 0:
            nap_s = min(left_s, _LONGEST_S)
            await asyncio.sleep(nap_s)
            left_s -= 0 if self._pulse.suspended() else nap_s

    async def _strike(self, signal: str) -> None:
        if self._pid is not None and not self._timeline.is_cut:
            words = (signal.encode(), b"%d" % self._pid)
            async with Deadline(self._pulse, _STRIKE_S, f"signal {self._command}"):
                await run(self._agent, script_call(SLAY, None, words), self._timeline)

    def _settle(self, status: Status) -> None:
        if self._result.done():
            return
        if status.is_truncated:
            self._fail(
                OutputTooLarge(
                    f"{self._command}: printed more than {MAX_CAPTURE >> 20} MiB, and the guest "
                    "agent drops what comes after that",
                    hint="write it to a file and get that",
                )
            )
            return
        both = ((STDOUT, status.stdout), (STDERR, status.stderr))
        self._pieces = [piece for piece in both if piece[1]]
        self._result.set_result(status)

    def _fail(self, error: HostctlError) -> None:
        if not self._result.done():
            self._result.set_exception(error)

    # --- for the user ---------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """See Process. All at the end."""
        await self._ended()
        return self._pieces.pop(0) if self._pieces else None

    async def write(self, data: Buffer) -> None:
        """See Process. The command begins when its input has ended."""
        if self._input is None:
            raise LocalProtocolError(f"{self._command}: was started without standard input")
        if self._started.is_set():
            return
        if len(self._input) + len(data) > MAX_INPUT:
            error = self._input_too_large()
            self._fail(error)
            raise error
        self._input += data

    async def close_stdin(self) -> None:
        """See Process. Starts the command."""
        if self._input is None:
            raise LocalProtocolError(f"{self._command}: was started without standard input")
        if self._started.is_set() or self._result.done():
            return
        try:
            await self.start(self._input)
        except HostctlError as err:
            self._fail(err)

    async def signal(self, name: str) -> None:
        """See Process."""
        if not name.isalnum() or not name.isascii():
            raise LocalProtocolError(f"not a signal: {name!r}")
        await self._started.wait()
        if not self._result.done():
            await self._strike(name)

    async def wait(self) -> ExitStatus:
        """See Process."""
        status = await self._ended()
        self._pieces.clear()
        return ExitStatus(status.code, status.signal, self._timed_out)

    async def _ended(self) -> Status:
        return await asyncio.shield(self._result)

    @property
    def _carried(self) -> int:
        """How much input one request carries: in base64, beside the command's own words."""
        words = [*self._command.argv, *self._command.env.values(), self._command.cwd or b""]
        own = _ENVELOPE + _ESCAPED * sum(map(len, words))
        return (self._agent.exchange.max_request_bytes - own) // 4 * 3

    def _input_too_large(self) -> Refused:
        return Refused(
            f"{self._command}: more than {MAX_INPUT >> 20} MiB of input; the guest agent "
            "takes it whole before the command begins",
            Capability.STREAMS.value,
            hint="put it into a file of the guest, and redirect from that",
        )
