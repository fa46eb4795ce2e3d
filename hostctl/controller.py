"""Controller: the machines of one home. Creates them, finds them, and closes what it opened."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .backends.interface import MEMORY_MIB, MachineSpec, check_name
from .backends.registry import find, new_options, open_backend
from .errors import BackendError, ConfigError, MachineNotFound
from .journal import Journal
from .machine import Machine
from .record import Record
from .state import Home, MachineFiles

if TYPE_CHECKING:
    from .backends.interface import Backend, Progress
    from .group import Group
    from .journal import Event
    from .pool import Pool
    from .template import Template

__all__ = ["Controller"]

logger = logging.getLogger(__name__)

BACKEND = "qemu"
HEARTBEAT_S = 10.0


class Controller:
    """All machines of one home, as an async context manager.

    Leaving it gives back ports; machines go on running.
    """

    def __init__(self, home: Home | None = None) -> None:
        self.home = (home or Home.default()).open()
        self._machines: dict[str, tuple[Record, Machine]] = {}  # what it is, and it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every machine that this controller handed out. Safe to call twice."""
        while self._machines:
            _, (_, machine) = self._machines.popitem()
            await machine.close()

    async def create(
        self,
        spec: MachineSpec,
        *,
        backend: str = BACKEND,
        connect: str | None = None,
        tags: Collection[str] = (),
    ) -> Machine:
        """Make a machine, stopped. All or nothing.

        `connect` is the libvirt to make it on, as a URI; by default the one that virsh would take.
        By `tags` it is selected later.

        Raises:
            MachineExists: the name is taken.
            ConfigError: the image, the kernel or a disk's base is not there, or cannot be used.
        """
        from .spec import resolved

        options = new_options(backend, spec.name, connect)
        return await self._make(Record(backend, resolved(spec), options), tags)

    async def _make(
        self,
        record: Record,
        tags: Collection[str] = (),
        made: Callable[[MachineFiles], None] | None = None,
    ) -> Machine:
        """Make a machine; `made` may add to its folder, before anybody sees it."""
        name = record.spec.name
        async with self.home.staging(name) as files:
            maker = _open(record, files)
            try:
                await maker.prepare()
            finally:
                await maker.close()
            record.write(files)
            if made is not None:
                made(files)
            if tags:
                from .tags import write_tags

                write_tags(files, tags)
        Journal(self.home.journal).note(name, "created")
        return self.machine(name)

    async def create_template(
        self,
        name: str,
        spec: MachineSpec,
        *,
        warm: Sequence[str] = (),
        on_clone: str | None = None,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        """Boot a machine of `spec` on QEMU, run the shell lines `warm` in it, keep its moment.

        `on_clone` is a script for the /bin/sh of each clone, to be run before anything else.

        Raises:
            TemplateExists: the name is taken.
            BootFailed: it did not boot; CommandFailed: a line failed. Nothing is kept.
        """
        from .template import Recipe
        from .template_builder import TemplateBuilder

        recipe = Recipe(spec, tuple(warm), on_clone)
        return await TemplateBuilder(self.home).create(
            name, recipe, timeout_s=timeout_s, progress=progress
        )

    async def create_template_from(
        self,
        name: str,
        machine: str,
        *,
        warm: Sequence[str] = (),
        on_clone: str | None = None,
    ) -> Template:
        """Make a template of a machine as it is at this moment; it goes on, halted for an instant.

        What runs in it runs in every clone. The lines `warm` are run in a copy.

        Raises:
            TemplateExists: the name is taken.
            WrongState: the machine does not run.
            Unsupported: it is not on a QEMU of hostctl's own.
        """
        from .source import Source
        from .template_builder import TemplateBuilder

        source = Source(self.machine(machine))
        return await TemplateBuilder(self.home).create_from(name, source, warm, on_clone)

    async def ensure_template(
        self, name: str, *, timeout_s: float = 120, progress: Progress | None = None
    ) -> Template:
        """Return the template `name`, fit for clones; make it if it must be made.

        Where there is none, but an image has its name, it is made of that image, which is built
        first if it has a recipe. One that came of an image and does not fit is made anew.

        Raises:
            TemplateNotFound: there is neither a template nor an image of that name.
            TemplateUnfit: it does not fit, and cannot be made anew: it did not come of an image, or
                machines use it.
        """
        from .spec import has_image
        from .template import Recipe
        from .template_builder import TemplateBuilder

        first = Recipe(MachineSpec("any", image=name)) if has_image(name) else None
        return await TemplateBuilder(self.home).ensure(
            name, first, timeout_s=timeout_s, progress=progress
        )

    async def template_of(
        self,
        image: str,
        *,
        memory_mib: int = MEMORY_MIB,
        cpus: int = 1,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        """Return the template of an image and a shape: "tiny", "tiny-512", "tiny-512-2cpus".

        It is made on first use, the image too; and anew, in the way it was made, when it does not
        fit the present QEMU or when the image has changed. Others who ask at once wait for it.

        Raises:
            ConfigError: there is no such image.
            TemplateUnfit: it does not fit, and cannot be made anew: machines use it.
        """
        from .template import Recipe, name_of
        from .template_builder import TemplateBuilder

        spec = MachineSpec("any", image=image, memory_mib=memory_mib, cpus=cpus)
        return await TemplateBuilder(self.home).ensure(
            name_of(spec), Recipe(spec), timeout_s=timeout_s, progress=progress
        )

    async def delete_template(self, name: str) -> None:
        """Remove a template.

        Raises:
            TemplateNotFound: there is none.
            TemplateInUse: machines that came of it are still there.
        """
        from .template import Templates

        await self.sweep_throwaways()  # or what a killed one left would hold it
        await Templates(self.home).delete(name)

    def templates(self) -> tuple[Template, ...]:
        """Return all templates, sorted by name."""
        from .template import Templates

        return Templates(self.home).list()

    async def clone(
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
        """Make a machine of a template's moment, and let it go on; `wait` for its agent.

        Its clock is set and its random pool fed before this returns, so that no two clones draw
        the same numbers. Its RAM is its own from the first write on, and so are its disks. With
        `owner_pid`, `sweep_throwaways` removes it once that process has ended. The template's
        script is run, then `on_clone`, as `create_template` takes it; both need an answer, `wait`
        or not.

        Raises:
            TemplateNotFound: there is none.
            TemplateUnfit: it does not fit the present QEMU, or is damaged; one that came of an
                image and is not in use is made anew instead.
            MachineExists: the name is taken.
            MemoryShort: it may need more than there is, and `overcommit` is not set; see memory.py.
            HookFailed: a script failed. Nothing is kept.
        """
        from .clone import CloneOptions, Cloner
        from .onclone import check_script

        options = CloneOptions(
            timeout_s, wait=wait, owner_pid=owner_pid, on_clone=check_script(on_clone)
        )
        cloner = Cloner(self)
        found = await cloner.template(template, 1, overcommit=overcommit)
        return await cloner.make(found, name, options)

    async def clone_all(
        self,
        template: str,
        names: Sequence[str],
        *,
        timeout_s: float = 60,
        on_clone: str | None = None,
        overcommit: bool = False,
    ) -> tuple[Machine, ...]:
        """Make several machines as `clone` does: all, or none.

        There is memory for all of them before the first one starts, or MemoryShort is raised.
        """
        from .clone import CloneOptions, Cloner
        from .onclone import check_script

        options = CloneOptions(timeout_s, on_clone=check_script(on_clone))
        cloner = Cloner(self)
        found = await cloner.template(template, len(names), overcommit=overcommit)
        return await cloner.make_all(found, names, options)

    async def take(
        self,
        template: str,
        *,
        timeout_s: float = 60,
        owner_pid: int | None = None,
        on_clone: str | None = None,
        overcommit: bool = False,
    ) -> Machine:
        """Return a clone that nobody has used yet: one of the template's pool, or else a new one.

        It has a name of its own. One of a pool has run a few commands, so that the next is as fast
        as any; its clock is set and its random pool fed, as are a new one's.

        Raises:
            As `clone` does.
        """
        from .clone import CloneOptions, Cloner
        from .onclone import check_script
        from .pool import Pools, member_name

        options = CloneOptions(timeout_s, owner_pid=owner_pid, on_clone=check_script(on_clone))
        machine = await Pools(self).take(template, options)
        if machine is None:
            cloner = Cloner(self)
            found = await cloner.template(template, 1, overcommit=overcommit)
            machine = await cloner.make(found, member_name(template), options)
        return machine

    async def create_pool(
        self,
        template: str,
        size: int,
        *,
        overcommit: bool = False,
        progress: Progress | None = None,
    ) -> Pool:
        """Keep `size` clones of a template waiting for `take`, from now on; return when they wait.

        The template is made as by `ensure_template`. A pool that is there gets this size.

        Raises:
            MemoryShort: they may need more than there is, and `overcommit` is not set; the pool
                stays as it was.
        """
        from .pool import Pools

        found = await self.ensure_template(template, progress=progress)
        return await Pools(self).create(found, size, overcommit=overcommit, progress=progress)

    async def fill_pool(self, template: str, *, progress: Progress | None = None) -> Pool:
        """Make what a pool lacks, now and here; `take` starts a process that does.

        Raises:
            PoolNotFound: the template has none.
        """
        from .pool import Pools

        pools = Pools(self)
        await pools.find(template)
        await pools.fill(template, progress)
        return await pools.find(template)

    async def delete_pool(self, template: str) -> None:
        """Remove a pool, and the clones that wait in it. Raises PoolNotFound."""
        from .pool import Pools

        await Pools(self).delete(template)

    async def pools(self) -> tuple[Pool, ...]:
        """Return all pools, sorted by template."""
        from .pool import Pools

        return await Pools(self).list()

    async def sweep_throwaways(self) -> None:
        """Remove clones whose owner was killed before it could, and what is left of pools."""
        from .clone import Cloner

        if self.home.pools.exists() or self.home.waiting():
            from .pool import Pools

            await Pools(self).sweep()
        await Cloner(self).sweep()

    def keep(self, name: str) -> None:
        """Take a clone from its owner: `sweep_throwaways` leaves it from now on. Repeatable.

        Raises:
            MachineNotFound: there is none.
        """
        files = self.home.find(name)
        Record.read(files).without_owner().write(files)

    async def adopt(
        self,
        domain: str,
        *,
        connect: str | None = None,
        name: str | None = None,
        backend: str = "libvirt",
    ) -> Machine:
        """Take a domain of libvirt, or a machine of VirtualBox, by name or uuid; it is not touched.

        Raises:
            MachineExists: the name is taken.
            ConfigError: there is no such domain, or its name cannot be a machine's.
        """
        options, spec = await find(backend, domain, connect, name)
        async with self.home.staging(spec.name) as files:
            Record(backend, spec, options).write(files)
        Journal(self.home.journal).note(spec.name, "adopted")
        return self.machine(spec.name)

    async def clone_snapshot(
        self, machine: str, name: str, *, snapshot: str | None = None
    ) -> Machine:
        """Make a machine whose disks are differences to a snapshot of another: the newest, or one.

        It is stopped; what the snapshot holds of memory, it goes on from at its first start. As
        long as it is there, the snapshot cannot be deleted.

        Raises:
            MachineExists: the name is taken.
            SnapshotNotFound: the other has no such snapshot.
            Unsupported: its hypervisor offers no such clones.
        """
        origin = self.machine(machine)
        record = Record.read(self.home.find(machine))
        async with self.home.staging(check_name(name)) as files:
            options = await origin.clone_into(files, snapshot)
            spec = replace(record.spec, name=name, is_adopted=False)
            Record(record.backend, spec, options).write(files)
        return self.machine(name)

    async def adopt_foreign(
        self,
        name: str,
        *,
        monitor: Path | None = None,
        lines: Mapping[str, str] | None = None,
        baud: int | None = None,
    ) -> Machine:
        """Take what somebody else started, a QEMU or just a line into a guest, as a machine.

        `monitor` is the QMP socket; `lines` are Unix sockets, ttys or URLs by the name of the port;
        `baud` is the speed of a tty (115200). Nothing is touched.

        Raises:
            MachineExists: the name is taken.
            ConfigError: no QEMU greets at `monitor`, or there is no way in at all.
        """
        from .backends.qemu.foreign import Foreign, is_monitor

        if monitor is None and not lines:
            raise ConfigError("a machine of somebody else's needs a QMP socket or a line")
        if monitor is not None and not await is_monitor(str(monitor)):
            hint = "it serves one client at a time: is another connected?"
            raise ConfigError(f"no QEMU greets at {monitor}", hint=hint)
        socket = None if monitor is None else os.path.abspath(monitor)  # noqa: ASYNC240 no I/O
        where = Foreign(socket, lines or {}, baud)
        spec = MachineSpec(name, is_adopted=True)
        async with self.home.staging(name) as files:
            Record("foreign", spec, where.to_json()).write(files)
        Journal(self.home.journal).note(spec.name, "adopted")
        return self.machine(name)

    def machine(self, name: str) -> Machine:
        """Return the machine of that name; the same object for the same machine.

        Raises:
            MachineNotFound: there is none.
        """
        files = self.home.find(name)
        record = Record.read(files)
        what = record.without_owner()  # whose it is may change
        known, machine = self._machines.get(name, (None, None))
        if machine is not None and known == what:
            return machine
        machine = Machine(self.home, record.spec, files, _open(record, files))
        self._machines[name] = what, machine
        return machine

    def names(self, *words: str, allow_empty: bool = False) -> tuple[str, ...]:
        """Return the names of the machines that words mean: names, patterns, @tags; see pattern.py.

        A plain name is returned whether there is such a machine or not.

        Raises:
            NothingMatches: a pattern or a tag means no machine; fine with `allow_empty`.
            ConfigError: a word could never mean one.
        """
        from .pattern import parse, select  # here, as the next: one plain name needs neither
        from .tags import read_tags

        selectors = parse(words)
        known: dict[str, Collection[str]] = dict.fromkeys(self.home.names(), ())
        if any(selector.is_tag for selector in selectors):
            known = {name: read_tags(self.home.files(name)) for name in known}
        return select(selectors, known, allow_empty=allow_empty)

    def select(
        self,
        *words: str,
        parallel: int | None = None,
        fail_fast: bool = False,
        allow_empty: bool = False,
    ) -> Group:
        """Return the machines that words mean, as one: "web", "1.2.*", "web-[0-9]", "@ci".

        What it is told is done on up to `parallel` (16) machines at once; with `fail_fast` the
        first failure ends the rest.

        Raises:
            NothingMatches: a pattern or a tag means no machine; fine with `allow_empty`.
            MachineNotFound: there is no machine of a plain name.
            ConfigError: a word could never mean one.
        """
        from .group import Group

        names = self.names(*words, allow_empty=allow_empty)
        return Group(map(self.machine, names), parallel=parallel, fail_fast=fail_fast)

    def machines(self) -> tuple[Machine, ...]:
        """Return all machines, sorted by name; one that cannot be read is only warned of."""
        found = []
        for name in self.home.names():
            try:
                found.append(self.machine(name))
            except MachineNotFound:  # deleted since we looked
                continue
            except (BackendError, ConfigError) as err:
                logger.warning("machine %s left out: %s", name, err)
        return tuple(found)

    def events(
        self, *patterns: str, heartbeat_s: float | None = HEARTBEAT_S, every_beat: bool = False
    ) -> AsyncIterator[Event]:
        """Yield what happens to machines from now on, whichever process does it, without end.

        `patterns` such as `web-*` choose machines, by default all, also those made later. Each
        agent is pinged every `heartbeat_s` seconds, None never; `every_beat` tells each answer,
        "alive", and not only changes.
        """
        from .events import Watcher

        wanted = partial(_matches, patterns or ("*",))
        return Watcher(self, wanted, heartbeat_s, every_beat=every_beat).events()


def _matches(patterns: Sequence[str], name: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _open(record: Record, files: MachineFiles) -> Backend:
    return open_backend(record.backend, record.spec, files, record.options)
