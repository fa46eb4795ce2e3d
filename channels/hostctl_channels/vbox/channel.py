"""Commands and files through VirtualBox's guest control, for guests with the Guest Additions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from ..deadline import Deadline
from ..entropy import FEED
from ..errors import CommandFailed, OutputTooLarge, Refused, RequestFailed, SpawnFailed
from ..interface import (
    MAX_OUTPUT,
    STDOUT,
    Buffer,
    Capability,
    Command,
    FileInfo,
    Progress,
    Pulse,
    PutOptions,
    Result,
)
from ..login import Login
from ..qga import files as by_tools
from ..qga.script import Oops, call_of
from . import files
from .control import GuestControl, Session
from .hands import VboxHands
from .places import Places, is_carried
from .process import VboxProcess
from .sessions import Sessions

__all__ = ["VboxChannel"]

_PLAIN: Final = PutOptions()
_START_S: Final = 60.0
_ALL: Final = frozenset(Capability) - {Capability.USAGE}


class VboxChannel:
    """See interface.Channel. One session is kept; it ends with `close`, or with its timeline.

    `login` is who runs the commands; without one the first request is refused.
    """

    def __init__(self, control: GuestControl, login: Login | None, pulse: Pulse) -> None:
        self._sessions = Sessions(control, login, pulse)
        self._pulse = pulse
        self._places: Places | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel. Whether the guest has the tools (su, sha256sum…) shows in use."""
        return _ALL if self._sessions.current else frozenset()

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return self._sessions.current is not None

    @property
    def additions(self) -> str:
        """The version of the Guest Additions; "" without a session."""
        session = self._sessions.current
        return session.additions if session else ""

    async def connect(self, timeout_s: float) -> None:
        """See Channel."""
        await self._sessions.take(timeout_s)

    async def close(self) -> None:
        """See Channel."""
        await self._sessions.drop()

    async def ping(self) -> float:
        """See Channel. A look at the root folder: it is the guest's service that answers."""
        session = await self._sessions.take()
        begin = time.perf_counter()
        async with Deadline(self._pulse, _START_S, "ping"):
            await session.look("/")
        return time.perf_counter() - begin

    async def set_clock(self, unix_s: float) -> None:
        """See Channel."""
        await self._tool(Command.of("date", "-u", "-s", f"@{int(unix_s)}"), b"")

    async def feed_entropy(self, data: Buffer) -> None:
        """See Channel."""
        await self._tool(Command.of("sh", "-c", FEED), data)

    async def _tool(self, command: Command, data: Buffer) -> None:
        try:
            (await self.exec(command, input=data)).check()
        except CommandFailed as err:
            raise RequestFailed(5, str(err)) from err

    # --- commands -------------------------------------------------------------------------------

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        """See Channel."""
        begin = time.perf_counter()
        kept = [bytearray(), bytearray()]
        async with self._running(command, bytes(input or b""), stdin=False) as process:
            while piece := await process.read():
                number, data = piece
                if len(kept[number - STDOUT]) + len(data) > max_output_bytes:
                    raise OutputTooLarge(f"{command}: printed more than {max_output_bytes} bytes")
                kept[number - STDOUT] += data
            status = await process.wait()
        took = time.perf_counter() - begin
        return Result(command, status, bytes(kept[0]), bytes(kept[1]), took)

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool = False) -> AsyncIterator[VboxProcess]:
        """See Channel."""
        async with self._running(command, b"", stdin=stdin) as process:
            yield process

    @asynccontextmanager
    async def _running(
        self, command: Command, data: bytes, *, stdin: bool
    ) -> AsyncIterator[VboxProcess]:
        if command.usage:
            text = f"{command}: guest control does not tell CPU time"
            raise Refused(text, Capability.USAGE.value)
        session, oops = await self._sessions.take(), Oops()
        epoch = self._sessions.epoch
        async with Deadline(self._pulse, _START_S, command, epoch=epoch):
            # Shielded: who is cancelled now must still learn what was started, to kill it.
            starting = asyncio.ensure_future(self._start(session, command, oops))
            try:
                number, pid, first = await asyncio.shield(starting)
            except asyncio.CancelledError:
                starting.add_done_callback(lambda found: _regret(session, found))
                raise
        process = VboxProcess(session, number, pid, command, oops, self._pulse, epoch)
        process.follow(first + data, stdin=stdin)
        try:
            yield process
        finally:
            await process.finish()

    async def _start(
        self, session: Session, command: Command, oops: Oops
    ) -> tuple[int, int, bytes]:
        """Start it, by the guest's sh unless it is simple; return number, pid, first input."""
        if self._places is None or self._places.session is not session:
            self._places = Places(session)
        if place := await self._places.of(command):
            try:
                words = [word.decode() for word in command.argv]
                return (*await session.start(place, words, _text(command.env)), b"")
            except SpawnFailed:  # the shell tells better what is wrong
                self._places.forget(command)
        call = call_of(command, None, oops, carries=is_carried)
        argv = [word.decode() for word in (call.path, *call.words)]
        if call.path == command.argv[0]:
            argv = ["/bin/sh", "-c", 'exec "$@"', "sh", *argv]
        return (*await session.start(argv[0], argv, {}), bytes(call.data or b""))

    # --- files ----------------------------------------------------------------------------------

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = _PLAIN,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel."""
        session = await self._sessions.take()
        if files.is_plain(path, options, None):
            return await files.upload(
                session, self._pulse, source, size_bytes, path, options, progress
            )
        hands = VboxHands(session)
        try:
            return await by_tools.upload(
                hands, self._pulse, source, size_bytes, path, options, progress
            )
        finally:
            await hands.end()

    async def get(
        self,
        path: bytes,
        sink: BinaryIO,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel."""
        session = await self._sessions.take()
        if files.is_plain(path, None, verify):
            return await files.download(
                session,
                self._pulse,
                path,
                sink,
                stat=stat,
                max_bytes=max_bytes,
                progress=progress,
            )
        hands = VboxHands(session)
        try:
            return await by_tools.download(
                hands,
                self._pulse,
                path,
                sink,
                may_exec=True,
                stat=stat,
                verify=verify,
                max_bytes=max_bytes,
                progress=progress,
            )
        finally:
            await hands.end()


def _text(env: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in env.items()}


def _regret(session: Session, found: asyncio.Future[tuple[int, int, bytes]]) -> None:
    """Kill what was started for nobody."""
    if not found.cancelled() and found.exception() is None:
        asyncio.ensure_future(session.terminate(found.result()[0]))  # noqa: RUF006 fire and forget
