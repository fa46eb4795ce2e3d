"""Choose the channel of a machine: the best of the lines that answer, and why not a better one.

`LINES` is the documented order. Another kind (a serial line, a login on the console) is a further
row: how to open it, and how long the rows above may take before it is tried as well. A machine
remembers which one answered, so that the next command asks nobody else; the agent's users never
wait for the others, and load none of their code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hostctl_channels.errors import ChannelClosed, ChannelReset, ChannelTimeout, HostctlError

from .errors import ConfigError

if TYPE_CHECKING:
    from hostctl_channels.interface import (
        Buffer,
        Capability,
        Channel,
        Command,
        FileInfo,
        Process,
        Progress,
        Pulse,
        PutOptions,
        Result,
    )
    from hostctl_channels.links.interface import Endpoint
    from hostctl_channels.qga import QgaChannel

__all__ = [
    "AUTO",
    "LINES",
    "BestChannel",
    "Line",
    "Site",
    "guest_agent",
    "line_named",
    "open_channel",
    "preload",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
CONNECT_S = 60.0  # for a request that finds no line yet
# How long better lines may still answer after a worse one did. A guest that boots starts its
# services in any order; one that never had a better line is known by its memory.
GRACE_S = 3.0
KNOWN_GRACE_S = 0.3
MAX_REASON = 300


class Site(NamedTuple):
    """Where a machine's lines are."""

    endpoints: Mapping[str, Endpoint]
    lock_dir: Path
    pulse: Pulse
    login: Path | None = None  # a file with who logs in at the console


class Line(NamedTuple):
    """One way into a guest."""

    key: str  # what `--channel` calls it
    title: str
    delay_s: float  # how long the lines above it are asked alone
    port: str  # the endpoint without which there is no such line
    open: Callable[[Site], Channel]
    needs_login: bool = False  # not tried unasked where nobody said who logs in

    def is_at(self, site: Site) -> bool:
        """Tell whether a machine has this line, to be tried unasked."""
        if self.port not in site.endpoints:
            return False
        return not self.needs_login or (site.login is not None and site.login.exists())


def preload() -> None:
    """Load what the agent's channel needs: 20 ms, for moments in which something is waited for."""
    from hostctl_channels import agent_channel, ports  # noqa: F401 for the next who imports them


def _agent(site: Site) -> Channel:
    from hostctl_channels.agent_channel import AgentChannel
    from hostctl_channels.ports import PortPool

    return AgentChannel(PortPool(site.endpoints, site.lock_dir), site.pulse)


def guest_agent(site: Site) -> QgaChannel:
    """Return the channel to QEMU's guest agent, which can freeze file systems too."""
    from hostctl_channels.ports import GUEST_AGENT, PortPool
    from hostctl_channels.qga import Exchanging, QgaChannel, SocketExchange

    place = site.endpoints.get(GUEST_AGENT)
    if isinstance(place, Exchanging):  # whoever has the line to itself lends its voice
        return QgaChannel(place.exchange(site.pulse), site.pulse)
    ports = PortPool(site.endpoints, site.lock_dir)
    return QgaChannel(SocketExchange(ports, site.pulse), site.pulse)


def _guest_control(site: Site) -> Channel:
    from hostctl_channels.login import Login
    from hostctl_channels.ports import GUEST_CONTROL
    from hostctl_channels.vbox import Controlling, VboxChannel

    place = site.endpoints[GUEST_CONTROL]
    assert isinstance(place, Controlling)
    login = Login.read(site.login) if site.login and site.login.exists() else None
    return VboxChannel(place.control(), login, site.pulse)


def _serial(site: Site) -> Channel:
    from hostctl_channels.serial_agent import serial_agent

    return serial_agent(site.endpoints["serial.1"], site.lock_dir, site.pulse)


def _console(site: Site) -> Channel:
    from hostctl_channels.console import login_console
    from hostctl_channels.login import Login

    login = Login.read(site.login) if site.login and site.login.exists() else None
    return login_console(site.endpoints["serial.1"], login, site.lock_dir, site.pulse)


# What speaks first on a serial line may meet a login that takes it for a user's name: it is spoken
# to only when nothing else answers.
LINES = (
    Line("agent", "hostctl agent over virtio-serial", 0.0, "org.hostctl.1", _agent),
    Line("qga", "QEMU guest agent", 1.5, "org.qemu.guest_agent.0", guest_agent),
    Line(
        "guestcontrol",
        "VirtualBox guest control",
        0.0,
        "virtualbox.guestcontrol",
        _guest_control,
        needs_login=True,
    ),
    Line("serial", "hostctl agent over a serial line", 15.0, "serial.1", _serial),
    Line("console", "login on a serial line", 20.0, "serial.1", _console, needs_login=True),
)


def line_named(key: str) -> Line:
    """Return a line by its key. Raises ConfigError if there is none."""
    for line in LINES:
        if line.key == key:
            return line
    known = ", ".join((AUTO, *(line.key for line in LINES)))
    raise ConfigError(f"there is no channel {key!r}", hint=f"channels are: {known}")


def open_channel(
    endpoints: Mapping[str, Endpoint],
    lock_dir: Path,
    pulse: Pulse,
    memory: Path | None = None,
    only: str = AUTO,
    login: Path | None = None,
) -> BestChannel:
    """Return the channel to a machine's guest, not connected yet; it does no I/O so far.

    `memory` is a file for what answered last; `only` forces one line by its key; `login`
    is a file as `Login.read` takes it.
    """
    site = Site(endpoints, lock_dir, pulse, login)
    return BestChannel(site, _Memory(memory), only)


class _Memory:
    """Which line answered last, in which epoch, and why no better one did."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> tuple[str, int, str]:
        """Return all three; ("", -1, "") if nothing is known."""
        try:
            key, epoch, reason = (self._path.read_text() if self._path else "").split(" ", 2)
            return key, int(epoch), reason.strip()
        except (OSError, ValueError):
            return "", -1, ""

    def write(self, key: str, epoch: int, reason: str) -> None:
        from .state import write_atomic

        if self._path:
            # A machine that is being deleted has no folder any more.
            with contextlib.suppress(OSError):
                text = f"{key} {epoch} {reason[:MAX_REASON]}\n"
                write_atomic(self._path, text.encode(), durable=False)


class BestChannel:
    """See interface.Channel. The first request chooses; silence makes the next one choose anew."""

    def __init__(
        self,
        site: Site,
        memory: _Memory,
        only: str,
    ) -> None:
        self._site = site
        self._memory = memory
        self._only = only
        self._line: Line | None = None
        self._channel: Channel | None = None
        self._choosing = asyncio.Lock()
        self.reason = ""

    @property
    def line(self) -> Line | None:
        """The line in use, None before the first request."""
        return self._line

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        return self._channel.capabilities if self._channel else frozenset()

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return self._channel is not None and self._channel.is_warm

    async def connect(self, timeout_s: float) -> None:
        """See Channel. Asks all lines that there are, if it is not known which answers."""
        with self._doubting():
            if self._channel is None:
                await self._choose(timeout_s)
            assert self._channel is not None
            await self._channel.connect(timeout_s)

    async def ping(self) -> float:
        """See Channel."""
        with self._doubting():
            return await (self._channel or await self._choose()).ping()

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int | None = None
    ) -> Result:
        """See Channel."""
        limit = {} if max_output_bytes is None else {"max_output_bytes": max_output_bytes}
        with self._doubting():
            channel = self._channel or await self._choose()
            return await channel.exec(command, input=input, **limit)

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool = False) -> AsyncIterator[Process]:
        """See Channel."""
        with self._doubting():
            channel = self._channel or await self._choose()
            async with channel.spawn(command, stdin=stdin) as process:
                yield process

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions | None = None,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel."""
        more = {} if options is None else {"options": options}
        with self._doubting():
            channel = self._channel or await self._choose()
            return await channel.put(source, size_bytes, path, progress=progress, **more)

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
        with self._doubting():
            channel = self._channel or await self._choose()
            return await channel.get(
                path, sink, stat=stat, verify=verify, max_bytes=max_bytes, progress=progress
            )

    async def set_clock(self, unix_s: float) -> None:
        """See Channel."""
        with self._doubting():
            await (self._channel or await self._choose()).set_clock(unix_s)

    async def feed_entropy(self, data: Buffer) -> None:
        """See Channel."""
        with self._doubting():
            await (self._channel or await self._choose()).feed_entropy(data)

    async def close(self) -> None:
        """See Channel."""
        if self._channel:
            await self._channel.close()

    # --- choosing -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _doubting(self) -> Iterator[None]:
        """Let a silent line be chosen anew next time."""
        try:
            yield
        except ChannelTimeout:
            if self._line:
                self._memory.write(self._line.key, -1, "")
            self._line = self._channel = None
            raise

    async def _choose(self, timeout_s: float = CONNECT_S) -> Channel:
        async with self._choosing:  # one race is enough for all tasks
            if self._channel is None:
                lines = self._candidates()
                key, epoch, why = self._memory.read()
                known = next((line for line in lines if line.key == key), None)
                if len(lines) == 1:
                    self._take(lines[0], "" if self._only == AUTO else "as told")
                elif known and epoch == self._site.pulse.epoch():
                    self._take(known, why)
                else:
                    await self._race(lines, known, timeout_s)
            assert self._channel is not None
            return self._channel

    def _candidates(self) -> tuple[Line, ...]:
        if self._only != AUTO:
            line = line_named(self._only)
            if line.port not in self._site.endpoints:
                raise ChannelClosed(f"this machine has no line for: {line.title}")
            return (line,)
        lines = tuple(line for line in LINES if line.is_at(self._site))
        return lines or LINES[:1]  # whose own error says what is wrong

    def _take(self, line: Line, reason: str, channel: Channel | None = None) -> None:
        self._line, self._channel = line, channel or line.open(self._site)
        self.reason = reason
        why = f" ({self.reason})" if self.reason else ""
        logger.info("channel: %s%s", line.title, why)

    async def _race(self, lines: tuple[Line, ...], known: Line | None, timeout_s: float) -> None:
        epoch = self._site.pulse.epoch()
        attempts = [_Attempt(line, self._site, known, timeout_s) for line in lines]
        try:
            winner = await _best(attempts, GRACE_S if known is None else KNOWN_GRACE_S)
        finally:
            for attempt in attempts:
                attempt.task.cancel()
            await asyncio.gather(*(a.task for a in attempts), return_exceptions=True)
        if winner is None:
            raise _none_answers(attempts)
        for attempt in attempts:
            if attempt is not winner and attempt.channel:
                await attempt.channel.close()
        better = attempts[: attempts.index(winner)]
        reason = "; ".join(f"{a.line.title}: {a.verdict}" for a in better)
        self._take(winner.line, reason, winner.channel)
        if self._only == AUTO:
            self._memory.write(winner.line.key, epoch, self.reason)


class _Attempt:
    """A line that is being asked."""

    def __init__(self, line: Line, site: Site, known: Line | None, timeout_s: float) -> None:
        self.line = line
        self.channel: Channel | None = None  # not before its time: opening it loads its code
        self._site = site
        self._delay_s = 0.0 if line is known else line.delay_s
        self._timeout_s = timeout_s
        self.task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        await asyncio.sleep(min(self._delay_s, self._timeout_s / 2))
        self.channel = self.line.open(self._site)
        await self.channel.connect(max(self._timeout_s - self._delay_s, self._timeout_s / 2))

    @property
    def error(self) -> BaseException | None:
        """Why it failed, None if it did not, or not yet."""
        done = self.task.done() and not self.task.cancelled()
        return self.task.exception() if done else None

    @property
    def has_answered(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def verdict(self) -> str:
        """Say in words why it was not taken."""
        return "no answer in time" if self.error is None else str(self.error)


async def _best(attempts: list[_Attempt], grace_s: float) -> _Attempt | None:
    """Wait for the first that answers, and a little for those above it; None if none does."""
    pending = {attempt.task for attempt in attempts}
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for attempt in attempts:
            if attempt.task.done() and not isinstance(attempt.error, HostctlError | None):
                raise attempt.error  # a bug of ours is no silence of the guest's
        if any(attempt.has_answered for attempt in attempts):
            break
    first = next((n for n, attempt in enumerate(attempts) if attempt.has_answered), None)
    if first is None:
        return None
    if better := [attempt.task for attempt in attempts[:first] if not attempt.task.done()]:
        await asyncio.wait(better, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    return next(attempt for attempt in attempts if attempt.has_answered)


def _none_answers(attempts: list[_Attempt]) -> HostctlError:
    """Make one error of all: of the kind that tells the caller most."""
    errors = [attempt.error for attempt in attempts]
    text = "; ".join(f"{a.line.title}: {a.verdict}" for a in attempts)
    for kind in (ChannelReset, ChannelTimeout):
        if any(isinstance(error, kind) for error in errors):
            return kind(f"no channel answers: {text}")
    return ChannelClosed(f"no channel answers: {text}")
