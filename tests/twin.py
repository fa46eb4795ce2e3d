"""Twins of a guest: the real agent.sh with no machine, on a socketpair or on ptys for ports.

A twin owns every process that it started and that came of these: it ends them, and tells of
leftovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import tty
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.errors import ChannelClosed
from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.links.stream import SocketLink
from hostctl_channels.ports import CONTROL, STREAM, WORK, PortPool
from hostctl_guestside import agent

__all__ = [
    "EACH_SHELL",
    "NEEDS",
    "SHELLS",
    "Family",
    "PtyTwin",
    "SocketTwin",
    "StillPulse",
    "twin_path",
]

SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "ash": ("busybox", "ash"),  # with busybox's tools alone, as in the tiny image
    "dash": ("dash",),
    "bash": ("bash",),
    "mksh": ("mksh",),
}
NEEDS: Final = {"ash": "busybox", "dash": "dash", "bash": "bash", "mksh": "mksh"}
EACH_SHELL: Final = [pytest.param(name, marks=pytest.mark.needs(NEEDS[name])) for name in SHELLS]

END_S = 10.0  # for an agent to notice that its line is gone


class StillPulse:
    """A guest whose time is cut or stands still when a test says so."""

    def __init__(self) -> None:
        self.now = 1
        self.paused = False

    def epoch(self) -> int:
        """See Pulse."""
        return self.now

    def suspended(self) -> bool:
        """See Pulse."""
        return self.paused


class Family:
    """The processes that carry one mark in their environment: an agent and all that came of it."""

    def __init__(self) -> None:
        self.mark = f"HOSTCTL_TWIN={secrets.token_hex(8)}"

    def pids(self) -> list[int]:
        """Return who is alive now."""
        return [int(entry.name) for entry in self._entries()]

    def lines(self) -> list[str]:
        """Return the command lines of those alive."""
        found = []
        for entry in self._entries():
            with contextlib.suppress(OSError):
                found.append(
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
        return found

    def end(self, grace_s: float) -> list[str]:
        """Wait until all are gone; kill the rest and return their command lines."""
        deadline = time.monotonic() + grace_s
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        left = self.lines()
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        return left

    def _entries(self) -> Iterator[Path]:
        mark = self.mark.encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield entry


def twin_path(shell: str, folder: Path) -> str:
    """Return the PATH of a guest: the host's, or for busybox nothing but its applets."""
    if shell != "ash":
        return os.environ["PATH"]
    applets = folder / "applets"
    if not applets.exists():
        applets.mkdir()
        applets.chmod(0o755)
        busybox = shutil.which("busybox")
        assert busybox
        for name in subprocess.check_output([busybox, "--list"], text=True).split():
            (applets / name).symlink_to(busybox)
    return str(applets)


class _Twin:
    """What both twins share: the agent's text and environment, its processes, and their end."""

    may_die_of_pipe = False

    def __init__(
        self, shell: str, folder: Path, *, user: str | None = None, wrapper: Sequence[str] = ()
    ) -> None:
        self.shell = shell
        self.folder = folder
        self._since = time.time() - 1  # clocks of file systems are a little behind
        self.family = Family()
        self.pulse = StillPulse()
        self.agents: list[subprocess.Popen[bytes]] = []
        self.leftovers_are_fine = False
        self.feels_pipe = True  # False: a broken line is an error and no signal, as with a port
        self._user = user
        self._wrapper = tuple(wrapper)
        self._script = folder / "agent.sh"
        self._script.write_bytes(agent())
        self._script.chmod(0o644)

    def _launch(self, *words: str, line: int, environ: Mapping[str, str]) -> None:
        key, _, value = self.family.mark.partition("=")
        argv = SHELLS[self.shell]
        shell = (shutil.which(argv[0]) or argv[0], *argv[1:])
        environ = {
            "PATH": twin_path(self.shell, self.folder),
            "HOSTCTL_SH": " ".join(shell),
            "TMPDIR": str(self.folder),
            "HOSTCTL_JOBS": str(self.folder / "jobs"),
            key: value,
            **environ,
        }
        with (self.folder / "agent.err").open("ab") as errors:
            process = subprocess.Popen(
                [*self._wrapper, *shell, self._script, *words],
                stdin=line,
                stdout=line,
                stderr=errors,
                env=environ,
                cwd="/",
                user=self._user,
                restore_signals=self.feels_pipe,  # Python itself ignores SIGPIPE
                start_new_session=True,
            )
        self.agents.append(process)

    def _finish(self) -> None:
        """End all; raise if something had to be killed that should have ended by itself."""
        left = self.family.end(0.2 if self.leftovers_are_fine else END_S)
        for process in self.agents:
            process.wait()
        stale = self.run_folders()
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
        if not self.leftovers_are_fine:
            assert not left, f"the agent left processes: {left}"
            # Without a port, a line that breaks under a frame ends the agent by SIGPIPE.
            assert not stale or self.may_die_of_pipe, f"the agent left folders: {stale}"

    def run_folders(self) -> list[Path]:
        """Return the agents' own: one that was killed may have left its own under the same pid."""
        roots = (Path("/run"), Path("/dev/shm"), self.folder)
        paths = (r / f"hostctl.{agent.pid}" for agent in self.agents for r in roots)
        return [path for path in paths if self._is_ours(path)]

    def _is_ours(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_ctime > self._since
        return False


@dataclass(frozen=True, slots=True)
class Dial:
    """An endpoint that is a function and what to call it with."""

    opener: Callable[[Path], Awaitable[Link]]
    path: Path

    async def open(self) -> Link:
        return await self.opener(self.path)


class SocketTwin(_Twin):
    """One work port and nothing else. Every connection has a fresh agent, as from inetd."""

    may_die_of_pipe = True

    def __init__(
        self, shell: str, folder: Path, *, user: str | None = None, wrapper: Sequence[str] = ()
    ) -> None:
        super().__init__(shell, folder, user=user, wrapper=wrapper)
        self.pool = PortPool({WORK[0]: Dial(self.open, folder / "1")}, folder)
        self.channel = AgentChannel(self.pool, self.pulse)

    def connect(self) -> socket.socket:
        """Start an agent; return our end of its line."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._launch("-", line=theirs.fileno(), environ={})
        return ours

    async def open(self, path: Path) -> Link:
        """Connect, for a pool."""
        return SocketLink(self.connect())

    async def close(self) -> None:
        """Hang up, and see that everything ends."""
        await self.channel.close()
        self._finish()


class PtyTwin(_Twin):
    """A folder of ports like /dev/virtio-ports: control, work and stream ports, each a pty."""

    def __init__(self, shell: str, folder: Path, *, streams: int = 4) -> None:
        super().__init__(shell, folder)
        self.ports = folder / "ports"
        self.ports.mkdir()
        self.names = (*CONTROL, *WORK, *STREAM[:streams])
        self._masters: dict[str, int] = {}
        self._slaves: dict[str, int] = {}
        for name in self.names:
            self.add(name)
        self.locks = folder / "locks"
        self.locks.mkdir()
        self.pool = self.new_pool()
        self.channel = AgentChannel(self.pool, self.pulse)
        self._launch(line=subprocess.DEVNULL, environ={"HOSTCTL_PORTS": str(self.ports)})

    def new_pool(self) -> PortPool:
        """Return a pool over the same ports and locks, as another process would have."""
        return PortPool({n: Dial(self.open, self.ports / n) for n in self.names}, self.locks)

    def add(self, name: str) -> None:
        """Add a port. The slave stays open here too, so that the master outlives an agent."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._masters[name], self._slaves[name] = master, slave
        (self.ports / name).symlink_to(os.ttyname(slave))

    async def open(self, path: Path) -> Link:
        """Connect, for a pool."""
        return PtyLink(self._masters[path.name])

    async def close(self) -> None:
        """Take the ports away, and see that everything ends."""
        await self.channel.close()
        await self._grow_up()
        self.agents[0].kill()
        self.agents[0].wait()
        for name in self._masters:
            (self.ports / name).unlink()
            os.close(self._slaves[name])
            os.close(self._masters[name])
        self._wake()
        self._finish()

    async def _grow_up(self) -> None:
        """Wait for the agent's last process, the one that tidies up: it naps after a first look."""
        first = self.agents[0]
        async with asyncio.timeout(END_S):
            while first.poll() is None and not self._has_napped():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _has_napped(self) -> bool:
        return any((folder / "nap").exists() for folder in self.run_folders())

    def _wake(self) -> None:
        """End the supervisor's nap, so that it looks now and not in five seconds."""
        for folder in self.run_folders():
            with contextlib.suppress(OSError, ValueError):  # empty while it looks
                os.kill(int((folder / "nap").read_text()), signal.SIGKILL)


class PtyLink:
    """A link over the master of a pty, not owned: closing it is no news for the other end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._open = True
        self._waiting: set[asyncio.Future[None]] = set()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        while self._open:
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError as err:
                raise ChannelClosed(f"the line broke: {err}") from err
        return 0

    async def send(self, data: Buffer) -> None:
        """See Link."""
        view = memoryview(data).cast("B")
        while view:
            if not self._open:
                raise ChannelClosed("the line broke: closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(reading=False)

    def close(self) -> None:
        """See Link."""
        self._open = False
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _ready(self, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        add, remove = (
            (loop.add_reader, loop.remove_reader)
            if reading
            else (loop.add_writer, loop.remove_writer)
        )
        self._waiting.add(future)
        add(self._fd, _wake, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            remove(self._fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
