"""Commands and files through our agent: the channel with the full set of features."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from .errors import (
    HostctlError,
    OutputTooLarge,
    PortsBusy,
    Refused,
    RequestFailed,
    SpawnFailed,
)
from .interface import (
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
from .port import Port
from .ports import CONTROL, STREAM, WORK, PortPool, number, suffix
from .process import AgentProcess
from .streams import StreamSupply
from .transfer import download, shown, upload
from .wire import Failure, Request, messages

__all__ = ["AgentChannel"]

logger = logging.getLogger(__name__)

_SHORT_S: Final = (
    20.0  # a request that moves no data; generous: an emulated guest under load stalls for seconds
)
_STALL_S: Final = 60.0  # a transfer in which not a byte moves
_PORT_S: Final = 60.0  # waiting for a free port
_LINGER_S: Final = (
    1.0  # an idle port stays ours that long, so that a loop of requests connects once
)
_EBUSY: Final = 16
_BUSY_S: Final = 10.0  # for a pair of stream ports that nobody in the guest holds
_PLAIN: Final = PutOptions()
_FEATURES: Final = {
    "signal": Capability.SIGNAL,
    "su": Capability.USER,
    "stat": Capability.METADATA,
    "sha256sum": Capability.SHA256,
    "touch": Capability.MTIME,
    "chown": Capability.OWNER,
    "date": Capability.CLOCK,
}


class AgentChannel:
    """See interface.Channel.

    `pulse` tells of the guest's time; `ports` are shared with other processes; `work` names those
    that take requests.
    """

    def __init__(self, ports: PortPool, pulse: Pulse, work: Collection[str] = WORK) -> None:
        self._ports = ports
        self._work = work
        self._pulse = pulse
        self._idle: dict[str, Port] = {}
        self._streams = StreamSupply(ports)
        self._linger: asyncio.TimerHandle | None = None
        self._used = 0.0  # when a port was idle last, by the loop's clock
        self._features: frozenset[str] = frozenset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        found = {Capability.STDIN, Capability.ENTROPY, Capability.USAGE}
        if self._ports.has(STREAM):
            found.add(Capability.STREAMS)
        found.update(_FEATURES[word] for word in self._features if word in _FEATURES)
        return frozenset(found if self._ports.has(CONTROL) else found - {Capability.SIGNAL})

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return any(port.is_fresh for name, port in self._idle.items() if name in self._work)

    async def connect(self, timeout_s: float) -> None:
        """See Channel."""
        async with self._port(timeout_s):
            pass

    async def close(self) -> None:
        """See Channel."""
        self._hang_up()

    # --- short requests -----------------------------------------------------------------------

    async def ping(self) -> float:
        """See Channel."""
        async with self._port() as port, port.deadline(_SHORT_S, "ping"):
            begin = time.perf_counter()
            await self._ask(port, messages.ping())
            return time.perf_counter() - begin

    async def set_clock(self, unix_s: float) -> None:
        """See Channel."""
        await self._short(messages.clock(unix_s), "set the clock", Capability.CLOCK)

    async def feed_entropy(self, data: Buffer) -> None:
        """See Channel."""
        await self._short(messages.entropy(data), "feed entropy", Capability.ENTROPY)

    async def rescan(self) -> None:
        """Make the agent look for new ports now rather than within five seconds."""
        await self._short(messages.rescan(), "look for ports")

    async def _short(self, request: Request, what: str, need: Capability | None = None) -> None:
        async with self._port() as port, port.deadline(_SHORT_S, what):
            self._need(need)
            await self._ask(port, request)

    async def _ask(self, port: Port, request: Request) -> None:
        await port.ask(request)
        answer = await port.answer()
        if isinstance(answer, Failure):
            raise RequestFailed(answer.errno, answer.text)

    def _need(self, capability: Capability | None) -> None:
        if capability and capability not in self.capabilities:
            raise Refused(f"this guest cannot: {capability.value}", capability.value)

    # --- commands -----------------------------------------------------------------------------

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        """See Channel."""
        begin = time.perf_counter()
        kept: tuple[bytearray, bytearray] = bytearray(), bytearray()
        async with self.spawn(command, stdin=input is not None) as process:
            feeder = asyncio.ensure_future(_feed(process, input)) if input is not None else None
            try:
                while piece := await process.read():
                    number, data = piece
                    kept[number - STDOUT].extend(data)
                    if len(kept[number - STDOUT]) > max_output_bytes:
                        raise OutputTooLarge(
                            f"{command}: printed more than {max_output_bytes} bytes",
                            hint="use spawn and read it as it comes",
                        )
                status = await process.wait()
            finally:
                if feeder:
                    feeder.cancel()
                    await asyncio.gather(feeder, return_exceptions=True)
        return Result(command, status, bytes(kept[0]), bytes(kept[1]), time.perf_counter() - begin)

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool = False) -> AsyncIterator[AgentProcess]:
        """See Channel."""
        async with self._port() as port:
            self._need(Capability.USER if command.user else None)
            process = await self._begin(port, command, stdin)
            try:
                yield process
            finally:
                await _end(process, port)

    async def _begin(self, port: Port, command: Command, stdin: bool) -> AgentProcess:
        """Start the command.

        A pair of stream ports that somebody in the guest still holds is passed over.
        """
        give_up = time.monotonic() + _BUSY_S
        while True:
            await self._streams.furnish(port, _PORT_S, self._hang_up)
            process = await self._request(port, command, stdin)
            if process.is_accepted:
                return process
            try:
                async with port.deadline(_STALL_S, command):
                    await process.accepted()
                return process
            except BaseException as err:
                await _end(process, port)
                if not _is_busy(err):
                    raise
                if time.monotonic() > give_up:
                    raise PortsBusy(
                        f"{command}: all stream ports are held in the guest",
                        hint="background commands may hold them: redirect their output",
                    ) from err
                logger.debug("%s: %s", command, err)
                self._streams.refuse(port)

    async def _request(self, port: Port, command: Command, stdin: bool) -> AgentProcess:
        if command.cwd or command.user or command.timeout_s:
            port.holds_streams = False  # what the guest may refuse, it refuses before a first nonce
        request = messages.execute(
            command.argv,
            tuple(command.env.items()),
            streams=_stream_words(port),
            stdin=stdin,
            timeout_s=command.timeout_s,
            cwd=command.cwd,
            user=command.user,
            usage=command.usage,
        )
        async with port.deadline(_STALL_S, command):
            await port.ask(request)
        process = AgentProcess(port, command, self._pulse, self._strike)
        process.start(stdin=stdin)
        return process

    async def _strike(self, name: str, signal: str) -> bool:
        """Signal what runs on a port, by the control port."""
        self._need(Capability.SIGNAL)
        try:
            async with self._port(names=CONTROL) as port, port.deadline(_SHORT_S, "signal"):
                await self._ask(port, messages.signal(suffix(name), signal))
        except RequestFailed:
            return False
        return True

    async def _restart(self, name: str) -> None:
        """End the worker of a port that does not answer; best effort, greeting goes on anyway."""
        logger.debug("%s: restarting its worker in the guest", name)
        with contextlib.suppress(HostctlError):
            async with (
                self._port(_SHORT_S / 4, names=CONTROL) as port,
                port.deadline(_SHORT_S, "restart"),
            ):
                await self._ask(port, messages.restart(suffix(name)))

    # --- files --------------------------------------------------------------------------------

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = _PLAIN,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel."""
        async with (
            self._port() as port,
            port.deadline(_STALL_S, f"put {shown(path)}") as deadline,
        ):
            self._need(Capability.SHA256 if options.verify else None)
            self._need(Capability.MTIME if options.mtime_s is not None else None)
            self._need(Capability.OWNER if options.owner else None)
            return await upload(port, deadline, source, size_bytes, path, options, progress)

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
        async with (
            self._port() as port,
            port.deadline(_STALL_S, f"get {shown(path)}") as deadline,
        ):
            self._need(Capability.SHA256 if verify else None)
            return await download(
                port,
                deadline,
                path,
                sink,
                stat=stat and Capability.METADATA in self.capabilities,
                verify=verify,
                max_bytes=max_bytes,
                progress=progress,
            )

    # --- ports --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _port(
        self, timeout_s: float = _PORT_S, names: Collection[str] | None = None
    ) -> AsyncIterator[Port]:
        """Hold a port whose agent answers.

        It is kept for a moment if its conversation is in order afterwards.
        """
        port = await self._take(names or self._work, timeout_s)
        try:
            yield port
        finally:
            if port.is_idle and not self._streams.is_wanted:
                self._idle[port.lease.name] = port
                self._stay()
            else:
                port.release(clean=port.is_idle)

    async def _take(self, names: Collection[str], timeout_s: float) -> Port:
        for name in [name for name in names if name in self._idle]:
            port = self._idle.pop(name)
            if port.is_fresh:
                return port
            port.release(clean=True)
        port = Port(await self._ports.lease(names, timeout_s), self._pulse)
        try:
            may_restart = names is not CONTROL and self._ports.has(CONTROL)
            greeting = await port.greet(timeout_s, self._restart if may_restart else None)
        except BaseException:
            port.release(clean=False)
            raise
        self._features = greeting.features
        return port

    def _stay(self) -> None:
        loop = asyncio.get_running_loop()
        self._used = loop.time()
        if not self._linger:
            self._linger = loop.call_later(_LINGER_S, self._tire)

    def _tire(self) -> None:
        """Hang up when nothing was asked for a while: one timer, however many requests."""
        loop, end = asyncio.get_running_loop(), self._used + _LINGER_S
        if loop.time() < end:
            self._linger = loop.call_at(end, self._tire)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        while self._idle:
            self._idle.popitem()[1].release(clean=True)
        self._streams.forgive()
        if self._linger:
            self._linger.cancel()
            self._linger = None


async def _end(process: AgentProcess, port: Port) -> None:
    """End a command; keep its port only if it is in order."""
    if not await process.finish():
        port.release(clean=False)


def _stream_words(port: Port) -> tuple[str, str] | None:
    if not port.streams:
        return None
    if port.holds_streams:
        return messages.HELD
    out, err = port.streams
    return number(out.name), number(err.name)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, SpawnFailed) and error.errno == _EBUSY


async def _feed(process: AgentProcess, data: Buffer) -> None:
    await process.write(data)
    await process.close_stdin()
