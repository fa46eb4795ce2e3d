"""Many machines without a hypervisor: each the real agent on a socketpair, found by name as usual.

Everything above the back end is real: home, tags, controller, machines, channels, command line.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from unittest import mock

from hostctl import controller as controller_module
from hostctl.backends.interface import Backend, Capabilities, MachineSpec
from hostctl.backends.report import BackendReport, Snapshot
from hostctl.controller import Controller
from hostctl.lifecycle import MachineState
from hostctl.state import Home, MachineFiles
from hostctl_channels.links.interface import Endpoint
from hostctl_channels.ports import WORK

from .twin import Dial, SocketTwin

__all__ = ["Fleet", "fleet"]


class TwinBackend:
    """A machine that always runs; its one port is a socketpair, with a fresh agent each time."""

    capabilities = Capabilities()
    is_adopted = True  # nobody kills it; to delete it is to forget it

    def __init__(self, files: MachineFiles, shell: str, twins: dict[str, SocketTwin]) -> None:
        self._files = files
        self._shell = shell
        self._twins = twins

    async def prepare(self) -> None:
        """See Backend."""

    async def state(self) -> MachineState:
        """See Backend."""
        return MachineState.RUNNING

    settle = state

    def uptime_s(self) -> None:
        """See Backend."""

    async def snapshots(self) -> tuple[Snapshot, ...]:
        """See Backend."""
        return ()

    async def describe(self) -> BackendReport:
        """See Backend."""
        return BackendReport(hypervisor="twin")

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        """See Backend."""
        twin = self._twins.get(self._files.name)
        if twin is None:
            self._files.runtime.mkdir(parents=True, exist_ok=True)
            self._files.runtime.chmod(0o755)
            twin = self._twins[self._files.name] = SocketTwin(self._shell, self._files.runtime)
        return {WORK[0]: Dial(twin.open, self._files.runtime)}

    async def close(self) -> None:
        """See Backend."""


class Fleet:
    """The machines of one home."""

    def __init__(self, home: Home, shell: str = "dash") -> None:
        self.home = home
        self.twins: dict[str, SocketTwin] = {}
        self._shell = shell

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let every controller meet twins meanwhile, and not QEMU."""
        with mock.patch.object(controller_module, "open_backend", self._open):
            yield

    async def create(self, names: Iterable[str], *, tags: tuple[str, ...] = ()) -> None:
        """Make machines; their agents start when they are first asked for something."""
        async with Controller(self.home) as controller:
            for name in names:
                await controller.create(MachineSpec(name, is_adopted=True), tags=tags)

    def hang_up(self) -> None:
        """End every agent, and what came of it."""
        marks = {twin.family.mark.encode() for twin in self.twins.values()}
        while pids := [pid for pid, words in _environments() if not marks.isdisjoint(words)]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for twin in self.twins.values():
            for agent in twin.agents:
                agent.wait()
            for folder in twin.run_folders():
                shutil.rmtree(folder, ignore_errors=True)

    def _open(
        self,
        kind: str,
        spec: MachineSpec,
        files: MachineFiles,
        options: Mapping[str, Any] | None = None,
    ) -> Backend:
        return cast(Backend, TwinBackend(files, self._shell, self.twins))


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


@contextlib.asynccontextmanager
async def fleet(home: Home, names: Iterable[str]) -> AsyncIterator[Controller]:
    """Yield a controller whose machines are twins."""
    ships = Fleet(home)
    with ships.installed():
        await ships.create(names)
        try:
            async with Controller(home) as controller:
                yield controller
        finally:
            await asyncio.to_thread(ships.hang_up)
