"""The same API without async, for scripts: one background loop thread, and thin wrappers.

::

    with Controller() as controller:
        machine = controller.machine("web")
        machine.start()
        print(machine.exec("uname", "-a").stdout)

Names and signatures are those of the async classes; tests/contract/test_sync_mirror.py holds them
equal. Works in any thread, also inside a running loop (Jupyter). Ctrl-C cancels the call it
interrupts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, TypeVar

from hostctl_channels.interface import MAX_OUTPUT

from . import controller as async_controller
from . import machine as async_machine
from .backends.interface import MEMORY_MIB, MachineSpec, Progress
from .controller import BACKEND, HEARTBEAT_S
from .guest import MAX_CONNECTIONS, MAX_READ
from .lifecycle import MachineState
from .state import Home

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer, ExitStatus, FileInfo, Result
    from hostctl_channels.interface import Process as AsyncProcess
    from hostctl_channels.interface import Progress as ByteProgress
    from hostctl_channels.links.interface import Endpoint
    from hostctl_channels.terminal import Terminal as AsyncTerminal

    from .attach import Attachment, Look
    from .backends.report import Snapshot
    from .forward import Forward, Trouble
    from .guest import Env, LocalPath
    from .job import Job as AsyncJob
    from .job import JobStatus
    from .journal import Event
    from .pool import Pool
    from .report import MachineReport
    from .state import MachineFiles
    from .stats import MachineStats
    from .sync_group import Group
    from .template import Template
    from .tree import TreeProgress, TreeReport

__all__ = ["Controller", "Job", "Machine", "Process", "Terminal"]

T = TypeVar("T")
U = TypeVar("U")


class Controller:
    """All machines of one home, as a context manager."""

    def __init__(self, home: Home | None = None) -> None:
        self._async = async_controller.Controller(home)
        self._loop = _LoopThread()
        self.home = self._async.home

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if not self._loop.is_closed:
            self._loop.call(self._async.close())
            self._loop.close()

    def create(
        self,
        spec: MachineSpec,
        *,
        backend: str = BACKEND,
        connect: str | None = None,
        tags: Collection[str] = (),
    ) -> Machine:
        made = self._async.create(spec, backend=backend, connect=connect, tags=tags)
        return Machine(self._loop, self._loop.call(made))

    def create_template(
        self,
        name: str,
        spec: MachineSpec,
        *,
        warm: Sequence[str] = (),
        on_clone: str | None = None,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        made = self._async.create_template(
            name, spec, warm=warm, on_clone=on_clone, timeout_s=timeout_s, progress=progress
        )
        return self._loop.call(made)

    def create_template_from(
        self,
        name: str,
        machine: str,
        *,
        warm: Sequence[str] = (),
        on_clone: str | None = None,
    ) -> Template:
        made = self._async.create_template_from(name, machine, warm=warm, on_clone=on_clone)
        return self._loop.call(made)

    def ensure_template(
        self, name: str, *, timeout_s: float = 120, progress: Progress | None = None
    ) -> Template:
        made = self._async.ensure_template(name, timeout_s=timeout_s, progress=progress)
        return self._loop.call(made)

    def template_of(
        self,
        image: str,
        *,
        memory_mib: int = MEMORY_MIB,
        cpus: int = 1,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        found = self._async.template_of(
            image, memory_mib=memory_mib, cpus=cpus, timeout_s=timeout_s, progress=progress
        )
        return self._loop.call(found)

    def delete_template(self, name: str) -> None:
        self._loop.call(self._async.delete_template(name))

    def templates(self) -> tuple[Template, ...]:
        return self._async.templates()

    def clone(
        self,
        template: str,
        name: str,
        *,
        timeout_s: float = 60,
        wait: bool = True,
        owner_pid: int | None = None,
        on_clone: str | None = None,
        overcommit: bool = False,
    ) -> Machine:
        made = self._async.clone(
            template,
            name,
            timeout_s=timeout_s,
            wait=wait,
            owner_pid=owner_pid,
            on_clone=on_clone,
            overcommit=overcommit,
        )
        return Machine(self._loop, self._loop.call(made))

    def clone_all(
        self,
        template: str,
        names: Sequence[str],
        *,
        timeout_s: float = 60,
        on_clone: str | None = None,
        overcommit: bool = False,
    ) -> tuple[Machine, ...]:
        made = self._async.clone_all(
            template, names, timeout_s=timeout_s, on_clone=on_clone, overcommit=overcommit
        )
        return tuple(Machine(self._loop, machine) for machine in self._loop.call(made))

    def take(
        self,
        template: str,
        *,
        timeout_s: float = 60,
        owner_pid: int | None = None,
        on_clone: str | None = None,
        overcommit: bool = False,
    ) -> Machine:
        taken = self._async.take(
            template,
            timeout_s=timeout_s,
            owner_pid=owner_pid,
            on_clone=on_clone,
            overcommit=overcommit,
        )
        return Machine(self._loop, self._loop.call(taken))

    def create_pool(
        self,
        template: str,
        size: int,
        *,
        overcommit: bool = False,
        progress: Progress | None = None,
    ) -> Pool:
        made = self._async.create_pool(template, size, overcommit=overcommit, progress=progress)
        return self._loop.call(made)

    def fill_pool(self, template: str, *, progress: Progress | None = None) -> Pool:
        return self._loop.call(self._async.fill_pool(template, progress=progress))

    def delete_pool(self, template: str) -> None:
        self._loop.call(self._async.delete_pool(template))

    def pools(self) -> tuple[Pool, ...]:
        return self._loop.call(self._async.pools())

    def sweep_throwaways(self) -> None:
        self._loop.call(self._async.sweep_throwaways())

    def keep(self, name: str) -> None:
        self._async.keep(name)

    def adopt(
        self,
        domain: str,
        *,
        connect: str | None = None,
        name: str | None = None,
        backend: str = "libvirt",
    ) -> Machine:
        found = self._async.adopt(domain, connect=connect, name=name, backend=backend)
        return Machine(self._loop, self._loop.call(found))

    def clone_snapshot(self, machine: str, name: str, *, snapshot: str | None = None) -> Machine:
        made = self._async.clone_snapshot(machine, name, snapshot=snapshot)
        return Machine(self._loop, self._loop.call(made))

    def adopt_foreign(
        self,
        name: str,
        *,
        monitor: Path | None = None,
        lines: Mapping[str, str] | None = None,
        baud: int | None = None,
    ) -> Machine:
        found = self._async.adopt_foreign(name, monitor=monitor, lines=lines, baud=baud)
        return Machine(self._loop, self._loop.call(found))

    def machine(self, name: str) -> Machine:
        return Machine(self._loop, self._async.machine(name))

    def events(
        self, *patterns: str, heartbeat_s: float | None = HEARTBEAT_S, every_beat: bool = False
    ) -> Iterator[Event]:
        watched = self._async.events(*patterns, heartbeat_s=heartbeat_s, every_beat=every_beat)
        return self._loop.iterate(watched)

    def names(self, *words: str, allow_empty: bool = False) -> tuple[str, ...]:
        return self._async.names(*words, allow_empty=allow_empty)

    def select(
        self,
        *words: str,
        parallel: int | None = None,
        fail_fast: bool = False,
        allow_empty: bool = False,
    ) -> Group:
        from .sync_group import Group

        how = {"fail_fast": fail_fast, "allow_empty": allow_empty}
        return Group(self._loop, self._async.select(*words, parallel=parallel, **how))

    def machines(self) -> tuple[Machine, ...]:
        return tuple(Machine(self._loop, machine) for machine in self._async.machines())


class Machine:
    """A virtual machine. Comes from a Controller, which also closes it."""

    def __init__(self, loop: _LoopThread, machine: async_machine.Machine) -> None:
        self._loop = loop
        self._async = machine
        self.name = machine.name
        self.spec = machine.spec

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def directory(self) -> Path:
        return self._async.directory

    @property
    def console_log(self) -> Path:
        return self._async.console_log

    @property
    def console_socket(self) -> Path:
        return self._async.console_socket

    def use_channel(self, key: str) -> None:
        self._async.use_channel(key)

    @property
    def steal(self) -> bool:
        return self._async.steal

    @steal.setter
    def steal(self, steal: bool) -> None:
        self._async.steal = steal

    def fetch_console_log(self) -> Path:
        return self._loop.call(self._async.fetch_console_log())

    def console_endpoint(self) -> Endpoint:
        return self._loop.call(self._async.console_endpoint())

    def uptime_s(self) -> float | None:
        return self._async.uptime_s()

    def state(self) -> MachineState:
        return self._loop.call(self._async.state())

    def start(
        self, *, wait: bool = True, timeout_s: float = 120, progress: Progress | None = None
    ) -> None:
        self._loop.call(self._async.start(wait=wait, timeout_s=timeout_s, progress=progress))

    def stop(self, *, force: bool = False, timeout_s: float = 30) -> None:
        self._loop.call(self._async.stop(force=force, timeout_s=timeout_s))

    def save(self) -> None:
        self._loop.call(self._async.save())

    def pause(self) -> None:
        self._loop.call(self._async.pause())

    def resume(self) -> None:
        self._loop.call(self._async.resume())

    def reset(self, *, wait: bool = True, timeout_s: float = 120) -> None:
        self._loop.call(self._async.reset(wait=wait, timeout_s=timeout_s))

    def delete(self, *, force: bool = False, undefine: bool = False) -> None:
        self._loop.call(self._async.delete(force=force, undefine=undefine))

    def wait(
        self, state: MachineState | Literal["ready"] = "ready", timeout_s: float = 120
    ) -> None:
        self._loop.call(self._async.wait(state, timeout_s))

    @property
    def tags(self) -> tuple[str, ...]:
        return self._async.tags

    def change_tags(
        self, *, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> tuple[str, ...]:
        return self._loop.call(self._async.change_tags(add=add, remove=remove))

    def channels(self) -> tuple[Look, ...]:
        return self._loop.call(self._async.channels())

    def attach(
        self, *, persist: bool = False, dry_run: bool = False, progress: Progress | None = None
    ) -> Attachment:
        found = self._async.attach(persist=persist, dry_run=dry_run, progress=progress)
        return self._loop.call(found)

    @property
    def is_attached(self) -> bool:
        return self._async.is_attached

    def detach(self) -> Attachment:
        return self._loop.call(self._async.detach())

    def set_login(self, login: Path) -> None:
        self._async.set_login(login)

    def describe(self) -> MachineReport:
        return self._loop.call(self._async.describe())

    def stats(self) -> MachineStats:
        return self._loop.call(self._async.stats())

    def screenshot(self) -> bytes:
        return self._loop.call(self._async.screenshot())

    def clone_into(self, files: MachineFiles, tag: str | None) -> Mapping[str, Any]:
        return self._loop.call(self._async.clone_into(files, tag))

    def save_snapshot(self, tag: str, *, quiesce: bool = False) -> None:
        self._loop.call(self._async.save_snapshot(tag, quiesce=quiesce))

    def list_snapshots(self) -> tuple[Snapshot, ...]:
        return self._loop.call(self._async.list_snapshots())

    def restore_snapshot(self, tag: str) -> None:
        self._loop.call(self._async.restore_snapshot(tag))

    def delete_snapshot(self, tag: str) -> None:
        self._loop.call(self._async.delete_snapshot(tag))

    def exec(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        check: bool = False,
        usage: bool = False,
    ) -> Result:
        return self._loop.call(
            self._async.exec(
                *argv,
                env=env,
                cwd=cwd,
                user=user,
                input=input,
                timeout_s=timeout_s,
                check=check,
                usage=usage,
            )
        )

    def shell(
        self,
        line: str,
        *,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        check: bool = False,
        usage: bool = False,
    ) -> Result:
        return self._loop.call(
            self._async.shell(
                line,
                env=env,
                cwd=cwd,
                user=user,
                input=input,
                timeout_s=timeout_s,
                check=check,
                usage=usage,
            )
        )

    def process(
        self,
        *argv: str | bytes,
        stdin: bool = False,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        usage: bool = False,
    ) -> AbstractContextManager[Process]:
        context = self._async.process(
            *argv, stdin=stdin, env=env, cwd=cwd, user=user, timeout_s=timeout_s, usage=usage
        )
        return self._loop.held(context, lambda process: Process(self._loop, process))

    def spawn(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> Job:
        job = self._async.spawn(
            *argv,
            env=env,
            cwd=cwd,
            user=user,
            input=input,
            timeout_s=timeout_s,
            keep_bytes=keep_bytes,
        )
        return Job(self._loop, self._loop.call(job))

    def job(self, id: str) -> Job:
        return Job(self._loop, self._async.job(id))

    def jobs(self) -> tuple[JobStatus, ...]:
        return self._loop.call(self._async.jobs())

    def terminal(
        self,
        *argv: str | bytes,
        rows: int = 24,
        columns: int = 80,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        plain: bool = False,
    ) -> AbstractContextManager[Terminal]:
        context = self._async.terminal(
            *argv,
            rows=rows,
            columns=columns,
            env=env,
            cwd=cwd,
            user=user,
            timeout_s=timeout_s,
            plain=plain,
        )
        return self._loop.held(context, lambda terminal: Terminal(self._loop, terminal))

    def forward(
        self,
        local: int | LocalPath,
        guest: int | str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        trouble: Trouble | None = None,
    ) -> AbstractContextManager[Forward]:
        context = self._async.forward(
            local, guest, max_connections=max_connections, trouble=trouble
        )
        return self._loop.held(context, lambda forward: forward)

    def put(
        self,
        source: LocalPath | BinaryIO | bytes,
        guest_path: str | bytes,
        *,
        mode: int | None = None,
        mtime_s: float | None = None,
        owner: str | None = None,
        verify: str | None = None,
        resume: bool = False,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        return self._loop.call(
            self._async.put(
                source,
                guest_path,
                mode=mode,
                mtime_s=mtime_s,
                owner=owner,
                verify=verify,
                resume=resume,
                progress=progress,
            )
        )

    def get(
        self,
        guest_path: str | bytes,
        destination: LocalPath | BinaryIO,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
        resume: bool = False,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        return self._loop.call(
            self._async.get(
                guest_path,
                destination,
                stat=stat,
                verify=verify,
                max_bytes=max_bytes,
                resume=resume,
                progress=progress,
            )
        )

    def put_tree(
        self,
        source: LocalPath,
        guest_path: str | bytes,
        *,
        exclude: Iterable[str | bytes] = (),
        replace: bool = False,
        partial: bool = False,
        owners: bool = False,
        special_bits: bool = False,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        return self._loop.call(
            self._async.put_tree(
                source,
                guest_path,
                exclude=exclude,
                replace=replace,
                partial=partial,
                owners=owners,
                special_bits=special_bits,
                progress=progress,
            )
        )

    def get_tree(
        self,
        guest_path: str | bytes,
        destination: LocalPath,
        *,
        exclude: Iterable[str | bytes] = (),
        replace: bool = False,
        partial: bool = False,
        links: Literal["inside", "skip"] = "inside",
        owners: bool = False,
        special_bits: bool = False,
        max_bytes: int | None = None,
        max_files: int | None = None,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        return self._loop.call(
            self._async.get_tree(
                guest_path,
                destination,
                exclude=exclude,
                replace=replace,
                partial=partial,
                links=links,
                owners=owners,
                special_bits=special_bits,
                max_bytes=max_bytes,
                max_files=max_files,
                progress=progress,
            )
        )

    def sync_to(
        self,
        source: LocalPath,
        guest_path: str | bytes,
        *,
        exclude: Iterable[str | bytes] = (),
        delete: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        return self._loop.call(
            self._async.sync_to(
                source,
                guest_path,
                exclude=exclude,
                delete=delete,
                checksum=checksum,
                dry_run=dry_run,
                progress=progress,
            )
        )

    def sync_from(
        self,
        guest_path: str | bytes,
        destination: LocalPath,
        *,
        exclude: Iterable[str | bytes] = (),
        delete: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        links: Literal["inside", "skip"] = "inside",
        max_bytes: int | None = None,
        max_files: int | None = None,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        return self._loop.call(
            self._async.sync_from(
                guest_path,
                destination,
                exclude=exclude,
                delete=delete,
                checksum=checksum,
                dry_run=dry_run,
                links=links,
                max_bytes=max_bytes,
                max_files=max_files,
                progress=progress,
            )
        )

    def glob(self, pattern: str | bytes) -> tuple[bytes, ...]:
        return self._loop.call(self._async.glob(pattern))

    def kind_of(self, guest_path: str | bytes) -> Literal["folder", "file", None]:
        return self._loop.call(self._async.kind_of(guest_path))

    def read(self, guest_path: str | bytes, max_bytes: int = MAX_READ) -> bytes:
        return self._loop.call(self._async.read(guest_path, max_bytes))

    def ping(self) -> float:
        return self._loop.call(self._async.ping())

    def close(self) -> None:
        self._loop.call(self._async.close())


class Process:
    """A command that runs. Leaving its context kills it if it still does."""

    def __init__(self, loop: _LoopThread, process: AsyncProcess) -> None:
        self._loop = loop
        self._async = process

    def read(self) -> tuple[int, bytes] | None:
        return self._loop.call(self._async.read())

    def write(self, data: Buffer) -> None:
        self._loop.call(self._async.write(data))

    def close_stdin(self) -> None:
        self._loop.call(self._async.close_stdin())

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def wait(self) -> ExitStatus:
        return self._loop.call(self._async.wait())


class Terminal:
    """A command at a terminal in the guest. Leaving its context kills it if it still runs."""

    def __init__(self, loop: _LoopThread, terminal: AsyncTerminal) -> None:
        self._loop = loop
        self._async = terminal
        self.tool = terminal.tool

    @property
    def is_real(self) -> bool:
        return self._async.is_real

    def read(self) -> bytes | None:
        return self._loop.call(self._async.read())

    def write(self, data: Buffer) -> None:
        self._loop.call(self._async.write(data))

    def close_stdin(self) -> None:
        self._loop.call(self._async.close_stdin())

    def resize(self, rows: int, columns: int) -> None:
        self._loop.call(self._async.resize(rows, columns))

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def wait(self) -> ExitStatus:
        return self._loop.call(self._async.wait())


class Job:
    """A command in the guest that outlives its caller."""

    def __init__(self, loop: _LoopThread, job: AsyncJob) -> None:
        self._loop = loop
        self._async = job
        self.id = job.id

    def __repr__(self) -> str:
        return repr(self._async)

    def status(self) -> JobStatus:
        return self._loop.call(self._async.status())

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        return self._loop.call(self._async.wait(timeout_s))

    def follow(
        self, stdout: int = 0, stderr: int = 0, *, wait: bool = True
    ) -> Iterator[tuple[int, bytes]]:
        return self._loop.iterate(self._async.follow(stdout, stderr, wait=wait))

    def output(self, max_bytes: int = MAX_OUTPUT) -> tuple[bytes, bytes]:
        return self._loop.call(self._async.output(max_bytes))

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def forget(self, *, force: bool = False) -> None:
        self._loop.call(self._async.forget(force=force))


class _LoopThread:
    """An event loop that runs in a thread of its own, so that it also runs between calls."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="hostctl-loop", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        self.is_closed = False

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result; what interrupts the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, values: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an asynchronous iterator yields; leaving this one ends that one."""

        async def following() -> T | None:
            return await anext(values, None)

        try:
            while (value := self.call(following())) is not None:
                yield value
        finally:
            if isinstance(values, AsyncGenerator) and not self.is_closed:
                self.call(_closed(values))

    @contextlib.contextmanager
    def held(self, context: AbstractAsyncContextManager[T], wrap: Callable[[T], U]) -> Iterator[U]:
        """Keep an async context open for as long as this one lasts.

        One task enters and leaves it: task groups and timeouts insist on that.
        """
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with context as value:
                entered.set_result(value)
                await leave.wait()

        holding = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        holding.add_done_callback(lambda ended: _pass_on(ended, entered))
        try:
            yield wrap(entered.result())
        finally:
            self._loop.call_soon_threadsafe(leave.set)
            if entered.done() and entered.exception() is None:
                holding.result()
            else:
                holding.cancel()

    def close(self) -> None:
        """Cancel what still runs, and end the thread. Safe to call twice."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with self._runner:  # cancels and awaits left-over tasks when it ends
            self._runner.run(self._until_stopped(started))

    async def _until_stopped(
        self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]
    ) -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


def _pass_on(ended: concurrent.futures.Future[None], entered: concurrent.futures.Future[T]) -> None:
    """Tell whoever waits for the context to open that it never will."""
    if entered.done():
        return
    if ended.cancelled():
        entered.cancel()
    else:
        error = ended.exception()
        assert error is not None
        entered.set_exception(error)


async def _closed(values: AsyncGenerator[Any, None]) -> None:
    await values.aclose()
