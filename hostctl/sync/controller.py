"""The synchronous Controller."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..backends.interface import MEMORY_MIB, MachineSpec, Progress
from ..controller import BACKEND, HEARTBEAT_S
from ..controller import Controller as AsyncController
from .loop import LoopThread
from .machine import Machine

if TYPE_CHECKING:
    from ..journal import Event
    from ..pool import Pool
    from ..state import Home
    from ..template import Template
    from .group import Group

__all__ = ["Controller"]


class Controller:
    """All machines of one home, as a context manager."""

    def __init__(self, home: Home | None = None) -> None:
        self._async = AsyncController(home)
        self._loop = LoopThread()
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
        from .group import Group

        how = {"fail_fast": fail_fast, "allow_empty": allow_empty}
        return Group(self._loop, self._async.select(*words, parallel=parallel, **how))

    def machines(self) -> tuple[Machine, ...]:
        return tuple(Machine(self._loop, machine) for machine in self._async.machines())
