"""Our agent on one serial line: a 16550 of a machine, a pty, a real tty, a URL of pyserial.

The agent and its wire are those of the fast ports; what a line without flow control needs on top
(little under way, digests, a way back after a loss) is here and in staged.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from .agent_channel import AgentChannel
from .errors import (
    ChannelClosed,
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    GuestError,
    RemoteProtocolError,
    TransferFailed,
)
from .interface import Buffer, Capability, Command, ExitStatus, Progress, Pulse, PutOptions
from .links.interface import Endpoint, Link
from .links.serial_line import BAUD, SerialEndpoint, gathered
from .ports import SERIAL, PortPool
from .staged import StagedChannel

__all__ = ["AgentFoothold", "Dialer", "UncutPulse", "lock_folder", "open_serial", "serial_agent"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

# What may be under way towards a reader that does not read. Linux 6.1 kept a million bytes without
# loss (bench/serial.py); older kernels keep 64 KiB before the line discipline's 4. Each piece costs
# a script besides, some 40 ms of an emulated guest: as large as is safe.
_PIECE: Final = 56 * 1024
# Towards us the guest's kernel waits for the UART, and nothing is lost. Bounds what must flow by
# after a cancelled get, two seconds of a 16550 under emulation.
_SLICE: Final = 512 * 1024
_CARRY: Final = 3  # times a piece is sent before the line is called bad
_SLACK_S: Final = 15.0  # beyond the time the bytes need: an emulated guest under load stalls
_BITS: Final = 10  # on a line, for one byte
_LINE: Final = 2048  # above the longest line of the wire
_GAP_S: Final = 0.05  # bash needs a few ms for a line, under emulation
_MAX_GAP_S: Final = 0.8
_FILL: Final = b"\n" + (b"." * 63 + b"\n") * (_PIECE // 64 + 4)
# Of that goes ahead, try by try, where we know of no cut body: what makes up for bytes that were
# lost. Never much: a guest that only boots, or is slow, reads all of it later, byte by byte, and an
# interpreted one needs a minute for 57 KB.
_LITTLE: Final = 1024
_FILLS: Final = (0, _LITTLE, 0, 8 * _LITTLE)


def _extending(limit: asyncio.Timeout, limit_s: float) -> Progress:
    loop = asyncio.get_running_loop()
    return lambda _: limit.reschedule(loop.time() + limit_s)


@asynccontextmanager
async def _bounded(limit_s: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as err:
        raise ChannelTimeout(f"{what}: no answer within {limit_s:g} s") from err


class UncutPulse:
    """The pulse of a guest of which nobody tells us."""

    def epoch(self) -> int:
        """See Pulse."""
        return 0

    def suspended(self) -> bool:
        """See Pulse."""
        return False


def open_serial(
    target: str | Path,
    *,
    baud: int = BAUD,
    lock_dir: Path | None = None,
    pulse: Pulse | None = None,
) -> StagedChannel:
    """Return a channel to the agent at a serial line, not connected yet.

    `target` is what `open_serial_line` takes. `lock_dir` must exist; by default it is a folder of
    this user's, named after the target, so that processes take turns.
    """
    locks = lock_dir or lock_folder(os.fspath(target))
    return serial_agent(SerialEndpoint(target, baud), locks, pulse or UncutPulse())


def serial_agent(endpoint: Endpoint, lock_dir: Path, pulse: Pulse) -> StagedChannel:
    """Return a channel to the agent at a machine's serial line, not connected yet."""
    dialer = Dialer(gathered(endpoint), lock_dir / f"{SERIAL}.body")
    pool = PortPool({SERIAL: dialer}, lock_dir)
    baud = endpoint.baud if isinstance(endpoint, SerialEndpoint) else BAUD
    return StagedChannel(AgentFoothold(pool, dialer, pulse, baud))


def lock_folder(target: str) -> Path:
    """Return the folder, made if need be, where processes of this user lock a line.

    Raises:
        ChannelClosed: somebody else owns it.
    """
    root = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(root) / f"hostctl-lines-{os.geteuid()}"
    for path in (folder, folder / sha256(os.path.realpath(target).encode()).hexdigest()[:16]):
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ChannelClosed(f"no lock for {target}: {path} is not ours")
    return path


class Dialer:
    """Opens the line, and fills up what the guest may still wait for after a broken conversation.

    A tty tells its reader of no hang-up: an agent in the middle of a body would take greetings for
    the rest of it. So lines that mean nothing go ahead: as many as a cut body may want, and a few
    when nothing else helps. `note` holds the size of the body under way: should its sender be
    killed, whoever has the line next knows.
    """

    def __init__(self, endpoint: Endpoint, note: Path) -> None:
        self._endpoint = endpoint
        self._note = note
        self._tries = 0
        self._body_bytes = 0  # of one that is about to be sent
        self._is_noted = False  # by us
        self.gap_s = 0.0

    async def open(self) -> Link:
        """See Endpoint."""
        link = _Halting(await self._endpoint.open(), self)
        try:
            await link.send(_FILL[: self._wanted() or _FILLS[self._tries % len(_FILLS)]])
        except BaseException:
            link.close()
            raise
        self._tries += 1
        return link

    def begin(self, body_bytes: int) -> None:
        """Take note that a body is about to be sent, as soon as the line is ours."""
        self._body_bytes = body_bytes

    def sending(self) -> None:
        """Take note, where others see it: the line is ours."""
        if self._body_bytes:
            self._note.write_text(f"{self._body_bytes}\n")
            self._body_bytes, self._is_noted = 0, True

    def slow(self) -> None:
        """Wait between a line and its body from now on, and longer each time."""
        self.gap_s = min(max(2 * self.gap_s, _GAP_S), _MAX_GAP_S)

    def settle(self) -> None:
        """Take note that the conversation is in order."""
        self._tries = self._body_bytes = 0
        if self._is_noted:
            self._note.unlink(missing_ok=True)
            self._is_noted = False

    def upset(self) -> None:
        """Take note that it broke in the middle: the next dial fills."""
        self._tries, self._body_bytes, self._is_noted = 1, 0, False

    def _wanted(self) -> int:
        """Return what a cut body may want, once."""
        try:
            text = self._note.read_text()
        except FileNotFoundError:
            return 0
        self._note.unlink()
        return _LITTLE + (int(text) if text.strip().isdigit() else _PIECE)


class _Halting:
    """A link that waits `gap_s` after each line.

    While bash reads a line of a tty it has the kernel turn CR into LF and heed Ctrl-C: bytes of a
    body that arrive meanwhile are damaged.
    """

    def __init__(self, link: Link, dialer: Dialer) -> None:
        self._link = link
        self._dialer = dialer
        self.receive_into = link.receive_into
        self.close = link.close

    async def send(self, data: Buffer) -> None:
        """See Link."""
        self._dialer.sending()
        await self._link.send(data)
        if self._dialer.gap_s and len(data) <= _LINE and bytes(data[-1:]) == b"\n":
            await asyncio.sleep(self._dialer.gap_s)


class AgentFoothold:
    """See staged.Foothold."""

    piece_bytes = _PIECE
    slice_bytes = _SLICE

    def __init__(self, pool: PortPool, dialer: Dialer, pulse: Pulse, baud: int) -> None:
        self.folder = b""
        self._agent = AgentChannel(pool, pulse, work=(SERIAL,))
        self._dialer = dialer
        self._pulse = pulse
        self._epoch = 0
        self._bytes_per_s = baud / _BITS

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        return self._agent.capabilities - {Capability.STREAMS, Capability.SIGNAL}

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return self._agent.is_warm

    async def open(self, timeout_s: float) -> None:
        """See Foothold."""
        async with self._talk():
            await self._agent.connect(timeout_s)
        if not self.folder or self._epoch != self._pulse.epoch():
            self._epoch = self._pulse.epoch()
            self.folder = await self._make_folder()

    async def _make_folder(self) -> bytes:
        name = f"hostctl-{os.urandom(8).hex()}"
        folders = [f"{place}/{name}".encode() for place in ("/tmp", "/run", "/dev/shm")]
        line = """umask 077; for d; do mkdir "$d" || continue
            printf '%s\\n' "$d"; readlink /proc/$PPID/exe; exit; done"""
        limit_s = _SLACK_S
        async with self._talk(), _bounded(limit_s, "make a folder"):
            result = await self._agent.exec(Command.of("sh", "-c", line, "sh", *folders))
        folder, _, shell = result.stdout.partition(b"\n")
        if folder not in folders:
            text = result.stderr[:200].decode("utf-8", "backslashreplace")
            raise TransferFailed(5, f"the guest has no folder for us: {text!a}")
        if shell.rstrip().endswith(b"bash") and not self._dialer.gap_s:
            self._dialer.slow()
        return folder

    async def ping(self) -> None:
        """See Foothold."""
        async with self._talk():
            await self._agent.ping()

    async def store(self, path: bytes, data: bytes) -> None:
        """See Foothold."""
        options = PutOptions(mode=0o600, verify=self._verify())

        async def carry(_: Progress) -> None:
            await self._agent.put(io.BytesIO(data), len(data), path, options)

        await self._carried(carry, len(data), "store a piece")

    async def fetch(self, path: bytes) -> bytes:
        """See Foothold."""

        async def carry(progress: Progress) -> bytes:
            sink = io.BytesIO()
            await self._agent.get(
                path, sink, verify=self._verify(), max_bytes=_SLICE, progress=progress
            )
            return sink.getvalue()

        return await self._carried(carry, 0, "fetch a slice")

    async def call(
        self, path: bytes, *words: bytes, timeout_s: float | None = None, usage: bool = False
    ) -> ExitStatus:
        """See Foothold."""
        command = Command.of("sh", path, *words, timeout_s=timeout_s, usage=usage)
        # With standard input the agent tells that it has begun: a request that was lost is noticed
        # at once. The exit may take as long as it likes.
        async with self._talk(), self._agent.spawn(command, stdin=True) as process:
            async with _bounded(_SLACK_S, "run a script"):
                await process.close_stdin()
            return await process.wait()

    async def close(self) -> None:
        """See Foothold."""
        self.folder = b""
        await self._agent.close()

    def _verify(self) -> str | None:
        return "sha256" if Capability.SHA256 in self.capabilities else None

    async def _carried(
        self, carry: Callable[[Progress], Awaitable[T]], size_bytes: int, what: str
    ) -> T:
        """Carry bytes, again if they were damaged or lost; progress is a reason to wait on."""
        limit_s = _SLACK_S + size_bytes / self._bytes_per_s
        for left in reversed(range(_CARRY)):
            try:
                async with self._talk(), asyncio.timeout(limit_s) as limit:
                    if size_bytes:
                        self._dialer.begin(size_bytes)
                    return await carry(_extending(limit, limit_s))
            except TimeoutError as err:  # ChannelTimeout is one
                if not left:
                    text = f"{what}: no answer within {limit_s:.0f} s, {_CARRY} times"
                    raise ChannelTimeout(text) from err
            except TransferFailed as err:
                self._check_folder(err)
                if not left or err.errno != 5:
                    raise
            except (ChannelError, RemoteProtocolError):
                if not left:
                    raise
            self._dialer.slow()
            logger.debug("%s: once more", what)
        raise AssertionError("unreachable")

    def _check_folder(self, err: TransferFailed) -> None:
        if err.errno == 2 and "no such folder" in err.message:
            self.folder = b""
            raise ChannelReset("the guest has begun anew: our folder there is gone") from err

    @asynccontextmanager
    async def _talk(self) -> AsyncIterator[None]:
        """Note whether a request leaves the line in order."""
        try:
            yield
        except GuestError:
            self._dialer.settle()
            raise
        except BaseException:
            self._dialer.upset()
            raise
        self._dialer.settle()
