"""Machines that only remember what was asked of them, for tests of the command line."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import pytest

from hostctl.backends.interface import MachineSpec, Nic, Snapshot
from hostctl.cli import opening
from hostctl.controller import Controller
from hostctl.errors import MachineExists, MachineNotFound
from hostctl.lifecycle import MachineState
from hostctl.machine import MachineReport
from hostctl.pattern import parse, select
from hostctl.stats import MachineStats
from hostctl.tags import check_tags
from hostctl.tree import TreeReport
from hostctl_channels.interface import ExitStatus, FileInfo
from hostctl_channels.links.stream import UnixEndpoint

SNAPSHOT = Snapshot("base", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 97 * 2**20)


class FakeProcess:
    """A command with a prepared output and end."""

    def __init__(self, output: Sequence[tuple[int, bytes]], status: ExitStatus) -> None:
        self._output = list(output)
        self._status = status
        self.received = bytearray()
        self.stdin_closed = False
        self.signals: list[str] = []

    async def read(self) -> tuple[int, bytes] | None:
        return self._output.pop(0) if self._output else None

    async def write(self, data: bytes) -> None:
        self.received += data

    async def close_stdin(self) -> None:
        self.stdin_closed = True

    async def signal(self, name: str) -> None:
        self.signals.append(name)

    async def wait(self) -> ExitStatus:
        return self._status


class ReadingProcess(FakeProcess):
    """Ends once its stdin has ended."""

    def __init__(self) -> None:
        super().__init__((), ExitStatus(0))
        self._closed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        await self._closed.wait()
        return None

    async def close_stdin(self) -> None:
        await super().close_stdin()
        self._closed.set()


@dataclass
class FakeMachine:
    """Follows orders, keeps files in a dict, and raises `error` instead when there is one."""

    spec: MachineSpec
    current: MachineState = MachineState.STOPPED
    error: Exception | None = None
    next_process: FakeProcess = field(default_factory=lambda: FakeProcess((), ExitStatus(0)))
    files: dict[bytes, bytes] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=set)
    info: FileInfo | None = None
    report: TreeReport = field(default_factory=lambda: TreeReport(3, 2, 1, 1000))
    calls: list[tuple[str, object]] = field(default_factory=list)
    nics: tuple[Nic, ...] | None = ()
    guest_nics: tuple[str, ...] | None = ("lo",)
    steal: bool = False
    tags: tuple[str, ...] = ()
    console_log: Path = Path("/nowhere/console.log")
    console_socket: Path = Path("/nowhere/console.sock")

    @property
    def name(self) -> str:
        return self.spec.name

    async def stats(self) -> MachineStats:
        self._note("stats", None)
        return MachineStats(None, None, None, None)

    async def fetch_console_log(self) -> Path:
        return self.console_log

    async def console_endpoint(self) -> UnixEndpoint:
        return UnixEndpoint(self.console_socket)

    async def state(self) -> MachineState:
        return self.current

    def uptime_s(self) -> float | None:
        return 83.5 if self.current is MachineState.RUNNING else None

    async def start(self, **how: object) -> None:
        self._note("start", how, MachineState.RUNNING)

    async def stop(self, **how: object) -> None:
        self._note("stop", how, MachineState.STOPPED)

    async def save(self) -> None:
        self._note("save", None, MachineState.STOPPED)

    async def screenshot(self) -> bytes:
        self._note("screenshot", None)
        return b"PNG"

    async def pause(self) -> None:
        self._note("pause", None, MachineState.PAUSED)

    async def resume(self) -> None:
        self._note("resume", None, MachineState.RUNNING)

    async def reset(self, **how: object) -> None:
        self._note("reset", how)

    async def delete(self, **how: object) -> None:
        self._note("delete", how)

    async def wait(self, goal: object, timeout_s: float) -> None:
        self._note("wait", (goal, timeout_s))

    async def change_tags(
        self, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        self._note("tags", (tuple(add), tuple(remove)))
        self.tags = check_tags((set(self.tags) | set(add)) - set(remove))
        return self.tags

    async def save_snapshot(self, tag: str, *, quiesce: bool = False) -> None:
        self._note("save", (tag, "quiesced") if quiesce else tag)

    def use_channel(self, key: str) -> None:
        self._note("use channel", key)

    async def restore_snapshot(self, tag: str) -> None:
        self._note("restore", tag)

    async def delete_snapshot(self, tag: str) -> None:
        self._note("delete snapshot", tag)

    async def list_snapshots(self) -> tuple[Snapshot, ...]:
        return (SNAPSHOT,)

    async def describe(self) -> MachineReport:
        running = self.current is MachineState.RUNNING
        return MachineReport(
            name=self.name,
            state=self.current,
            pid=4711 if running else None,
            uptime_s=self.uptime_s(),
            accel="tcg" if running else None,
            accel_reason="no /dev/kvm" if running else None,
            run_state="running" if running else None,
            image=self.spec.image,
            memory_mib=self.spec.memory_mib,
            cpus=self.spec.cpus,
            hypervisor="qemu",
            disks=(),
            ports=None,
            nics=self.nics,
            guest_nics=self.guest_nics,
            channel="agent",
            channel_reason=None,
            capabilities=("signal", "stdin"),
            snapshots=(SNAPSHOT,),
            directory=Path("/nowhere"),
            console_log=self.console_log,
            tags=self.tags,
        )

    @contextlib.asynccontextmanager
    async def process(self, *argv: bytes, **how: object) -> AsyncIterator[FakeProcess]:
        self._note("process", (argv, how))
        yield self.next_process

    async def put(
        self, source: BinaryIO, path: bytes, *, progress: Callable[[int], None], **how: object
    ) -> FileInfo:
        from hostctl_channels.errors import TransferFailed

        self._note("put", (path, how))
        if path in self.folders:
            raise TransferFailed(21, f"put {os.fsdecode(path)}: is a directory", path=path)
        self.files[path] = source.read()
        progress(len(self.files[path]))
        return self.info or FileInfo(len(self.files[path]))

    async def get(
        self,
        path: bytes,
        sink: str | BinaryIO,
        *,
        progress: Callable[[int], None],
        **how: object,
    ) -> FileInfo:
        from hostctl_channels.errors import TransferFailed

        self._note("get", (path, how))
        if path in self.folders:
            raise TransferFailed(21, f"get {os.fsdecode(path)}: is a directory", path=path)
        if path not in self.files:
            raise TransferFailed(2, f"get {os.fsdecode(path)}: no such file", path=path)
        if isinstance(sink, str):
            Path(sink).write_bytes(self.files[path])
        else:
            sink.write(self.files[path])
        return self.info or FileInfo(len(self.files[path]))

    async def put_tree(self, source: str, path: bytes, **how: object) -> TreeReport:
        self._note("put_tree", (source, path, how))
        return self.report

    async def get_tree(self, path: bytes, destination: str, **how: object) -> TreeReport:
        self._note("get_tree", (path, destination, how))
        return self.report

    async def sync_to(self, source: str, path: bytes, **how: object) -> TreeReport:
        self._note("sync_to", (source, path, how))
        return self.report

    async def sync_from(self, path: bytes, destination: str, **how: object) -> TreeReport:
        self._note("sync_from", (path, destination, how))
        return self.report

    async def kind_of(self, path: bytes) -> str | None:
        return "folder" if path in self.folders else "file" if path in self.files else None

    async def glob(self, pattern: bytes) -> tuple[bytes, ...]:
        self._note("glob", pattern)
        return tuple(sorted(self.files))

    def _note(self, what: str, how: object, after: MachineState | None = None) -> None:
        self.calls.append((what, how))
        if self.error is not None:
            raise self.error
        self.current = after or self.current


class FakeController:
    """Hands out fake machines."""

    def __init__(self, *names: str) -> None:
        self.all = {name: FakeMachine(MachineSpec(name, image="tiny")) for name in names}

    async def __aenter__(self) -> "FakeController":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def sweep_throwaways(self) -> None:
        return None

    async def create(
        self,
        spec: MachineSpec,
        *,
        backend: str = "qemu",
        connect: str | None = None,
        tags: Sequence[str] = (),
    ) -> FakeMachine:
        self.asked = (backend, connect)
        if spec.name in self.all:
            raise MachineExists(spec.name)
        return self.all.setdefault(spec.name, FakeMachine(spec, tags=check_tags(tags)))

    async def adopt(
        self,
        domain: str,
        *,
        connect: str | None = None,
        name: str | None = None,
        backend: str = "libvirt",
    ) -> FakeMachine:
        machine = await self.create(MachineSpec(name or domain, is_adopted=True))
        self.asked = (domain, connect)
        self.backend = backend
        return machine

    def templates(self) -> tuple[()]:
        return ()

    async def clone_snapshot(
        self, machine: str, name: str, *, snapshot: str | None = None
    ) -> FakeMachine:
        self.machine(machine)
        made = await self.create(MachineSpec(name, image="tiny"))
        self.asked = (machine, snapshot)
        return made

    def machine(self, name: str) -> FakeMachine:
        if name not in self.all:
            raise MachineNotFound(name)
        return self.all[name]

    def names(self, *words: str, allow_empty: bool = False) -> tuple[str, ...]:
        known = {name: self.all[name].tags for name in sorted(self.all)}
        return select(parse(words), known, allow_empty=allow_empty)

    def machines(self) -> tuple[FakeMachine, ...]:
        return tuple(self.all[name] for name in sorted(self.all))


@contextmanager
def installed(controller: FakeController) -> Iterator[FakeController]:
    """Make every command meet this controller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "open_controller", lambda: cast(Controller, controller))
        yield controller
