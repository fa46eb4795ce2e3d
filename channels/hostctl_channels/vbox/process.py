"""A command under guest control: live streams, and the signals that VirtualBox does not know.

A task pulls its output, no further ahead than a few pieces; both streams are drained to the end,
for VBoxService tells of an end only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final

from ..deadline import Deadline
from ..errors import ChannelTimeout, HostctlError, LocalProtocolError
from ..interface import STDERR, Buffer, Command, ExitStatus, Pulse
from ..qga.script import Oops
from .control import Piece, Session

__all__ = ["VboxProcess", "run"]

logger = logging.getLogger(__name__)

_AHEAD: Final = 8  # pieces of 64 KiB that may wait for a reader
_NAP_S: Final = 0.5
_TERM_S: Final = 2.0  # between TERM and KILL, as our own agent does
_STRIKE_S: Final = 30.0  # to send a signal, in a guest under load
_END_S: Final = 15.0  # to kill a command and see it end
_MAX_OOPS: Final = 1000
# VBoxService (7.2) gives each command a process group of its own; the pid alone if it does not.
_KILL: Final = b'kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null'


async def run(
    session: Session, argv: tuple[bytes, ...], data: Buffer, limit_bytes: int
) -> tuple[ExitStatus, bytes, bytes]:
    """Run a short program of ours to its end. What it prints beyond the limit is dropped."""
    process, _ = await session.start(argv[0].decode(), [word.decode() for word in argv], {})
    kept = [bytearray(), bytearray()]
    try:
        await session.write(process, data, end=True)
        while isinstance(said := await session.read(process), Piece):
            room = limit_bytes - len(kept[said.stream - 1])
            kept[said.stream - 1] += said.data[: max(0, room)]
    except BaseException:
        with contextlib.suppress(HostctlError):
            await asyncio.shield(session.terminate(process))
        raise
    return said, bytes(kept[0]), bytes(kept[1])


class VboxProcess:
    """See interface.Process. Made by VboxChannel.spawn, for a command that has begun."""

    def __init__(
        self,
        session: Session,
        number: int,
        pid: int,
        command: Command,
        oops: Oops,
        pulse: Pulse,
        epoch: int,
    ) -> None:
        self._session = session
        self._number = number
        self._pid = pid
        self._command = command
        self._oops = oops
        self._pulse = pulse
        self._epoch = epoch  # the session's: what was cut since then is not ours any more
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue(_AHEAD)
        self._said = b""  # the beginning of stderr, while it may be the script's own failure
        self._has_begun = False
        self._feeding: asyncio.Task[None] | None = None
        self._timed_out = False
        self._has_stdin = True
        self._status: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    # --- for the channel ------------------------------------------------------------------------

    def follow(self, first: bytes, *, stdin: bool) -> None:
        """Begin to pull. `first` goes to standard input, which ends then unless `stdin`."""
        self._has_stdin = stdin
        self._spawn(self._pull())
        if first or not stdin:
            self._feeding = self._spawn(self._feed(first, end=not stdin))
        if self._command.timeout_s is not None:
            self._spawn(self._enforce(self._command.timeout_s))

    async def finish(self) -> None:
        """Kill it if it runs, and forget it."""
        if not self._status.done() and self._pulse.epoch() == self._epoch and self._session.is_open:
            try:
                async with asyncio.timeout(_END_S):
                    await self._strike("KILL")
                    await self._drained()
            except (HostctlError, TimeoutError) as err:
                logger.debug("%s: could not be ended: %s", self._command, err)
                with contextlib.suppress(HostctlError):
                    await self._session.terminate(self._number)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._status.done() and not self._status.cancelled():
            self._status.exception()  # whoever waited has seen it
        self._status.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    # --- following ------------------------------------------------------------------------------

    async def _pull(self) -> None:
        try:
            async with Deadline(self._pulse, None, self._command, epoch=self._epoch):
                while isinstance(said := await self._session.read(self._number), Piece):
                    await self._keep(said)
            if error := self._oops.error(said.code, self._said, str(self._command)):
                raise error
            await self._release()
            self._settle(replace(said, timed_out=self._timed_out))
        except HostctlError as err:
            self._settle(err)
        await self._pieces.put(None)

    async def _keep(self, piece: Piece) -> None:
        """Pass a piece on; hold back what may be our own script's last words."""
        if piece.stream == STDERR and self._may_be_oops(piece.data):
            self._said += piece.data
            return
        if piece.stream == STDERR:
            await self._release()
        await self._pieces.put(piece)

    def _may_be_oops(self, data: bytes) -> bool:
        said = self._said + data
        return not self._has_begun and len(said) < _MAX_OOPS and self._oops.begins(said)

    async def _release(self) -> None:
        self._has_begun = True
        said, self._said = self._said, b""
        if said:
            await self._pieces.put(Piece(STDERR, said))

    def _settle(self, end: ExitStatus | HostctlError) -> None:
        if self._status.done():
            return
        if isinstance(end, HostctlError):
            self._status.set_exception(end)
        else:
            self._status.set_result(end)

    async def _feed(self, data: bytes, *, end: bool) -> None:
        try:
            await self._session.write(self._number, data, end=end)
        except HostctlError as err:
            logger.debug("%s: its input was not taken: %s", self._command, err)

    async def _enforce(self, limit_s: float) -> None:
        """Keep the command's timeout from here; it counts while the machine runs."""
        for name, nap_s in (("TERM", limit_s), ("KILL", _TERM_S), ("", _END_S)):
            await self._nap(nap_s)
            if not name:
                self._give_up(f"{self._command}: still runs {_END_S:g} s after KILL")
                return
            self._timed_out = True
            with contextlib.suppress(HostctlError):
                await self._strike(name)

    def _give_up(self, text: str) -> None:
        self._settle(ChannelTimeout(text))
        self._tasks[0].cancel()
        while not self._pieces.empty():
            self._pieces.get_nowait()
        self._pieces.put_nowait(None)

    async def _nap(self, left_s: float) -> None:
        while left_s > 0:
            nap_s = min(left_s, _NAP_S)
            await asyncio.sleep(nap_s)
            left_s -= 0 if self._pulse.suspended() else nap_s

    async def _strike(self, signal: str) -> None:
        """Send a signal to the command and all it started: by a script, for there is no call."""
        argv = (b"/bin/sh", b"-c", _KILL, b"sh", signal.encode(), b"%d" % self._pid)
        async with Deadline(self._pulse, _STRIKE_S, f"signal {self._command}", epoch=self._epoch):
            await run(self._session, argv, b"", 0)

    # --- for the user ---------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """See Process."""
        if self._status.done() and self._pieces.empty():
            self._status.result()
            return None
        piece = await self._pieces.get()
        if piece is None:
            self._status.result()
            return None
        return piece.stream, piece.data

    async def write(self, data: Buffer) -> None:
        """See Process."""
        if not self._has_stdin:
            raise LocalProtocolError(f"{self._command}: was started without standard input")
        await self._write(data, end=False)

    async def close_stdin(self) -> None:
        """See Process."""
        if not self._has_stdin:
            return
        self._has_stdin = False
        await self._write(b"", end=True)

    async def _write(self, data: Buffer, *, end: bool) -> None:
        if self._feeding is not None:
            await asyncio.wait([self._feeding])
        if not self._status.done():
            async with Deadline(self._pulse, None, self._command, epoch=self._epoch):
                await self._session.write(self._number, data, end=end)

    async def signal(self, name: str) -> None:
        """See Process."""
        if not name.isalnum() or not name.isascii():
            raise LocalProtocolError(f"not a signal: {name!r}")
        if not self._status.done():
            await self._strike(name)

    async def wait(self) -> ExitStatus:
        """See Process."""
        await self._drained()
        return await asyncio.shield(self._status)

    async def _drained(self) -> None:
        while not self._status.done() or not self._pieces.empty():
            if await self._pieces.get() is None:
                return
