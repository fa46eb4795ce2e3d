"""Controller: the machines of one home. Creates them, finds them, and closes what it opened."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .backends.interface import MEMORY_MIB, DiskSpec, MachineSpec, check_name
from .backends.registry import find, new_options, open_backend
from .errors import BackendError, ConfigError, HostctlError, MachineNotFound
from .journal import Journal
from .machine import Machine
from .state import Home, MachineFiles, read_json, write_json

if TYPE_CHECKING:
    from .backends.interface import Progress
    from .group import Group
    from .journal import Event
    from .template import Template

__all__ = ["Controller"]

logger = logging.getLogger(__name__)

BACKEND = "qemu"
HEARTBEAT_S = 10.0
SPEC_VERSION = 1
MAX_DISKS = 16  # each takes a PCI slot; the pc machine has 32, a dozen of them ours


class Controller:
    """All machines of one home, as an async context manager.

    Leaving it gives back ports; machines go on running.
    """

    def __init__(self, home: Home | None = None) -> None:
        self.home = (home or Home.default()).open()
        self._machines: dict[str, Machine] = {}

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
            _, machine = self._machines.popitem()
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
        options = new_options(backend, spec.name, connect)
        return await self._make(_resolved(spec), backend, options, tags)

    async def _make(
        self,
        spec: MachineSpec,
        backend: str,
        options: Mapping[str, Any],
        tags: Collection[str] = (),
    ) -> Machine:
        async with self.home.staging(spec.name) as files:
            maker = open_backend(backend, spec, files, options)
            try:
                await maker.prepare()
            finally:
                await maker.close()
            _write(files, backend, spec, options)
            if tags:
                from .tags import write_tags

                write_tags(files, tags)
        Journal(self.home.journal).note(spec.name, "created")
        return self.machine(spec.name)

    async def create_template(
        self,
        name: str,
        spec: MachineSpec,
        *,
        warm: Sequence[str] = (),
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        """Boot a machine of `spec` on QEMU, run the shell lines `warm` in it, keep its moment.

        Raises:
            TemplateExists: the name is taken.
            BootFailed: it did not boot; CommandFailed: a line failed. Nothing is kept.
        """
        from .template import Templates

        return await Templates(self.home).create(
            name, _resolved(spec), warm, timeout_s=timeout_s, progress=progress
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
        """Return the template of an image: "tiny", "tiny-512"; made on first use, the image too.

        It is made anew when it does not fit the present QEMU, or the image has changed. Others who
        ask at once wait for it. One of that name that you made yourself is returned as it is.

        Raises:
            ConfigError: there is no such image.
            TemplateUnfit: it is your own, and does not fit.
            TemplateInUse: it does not fit, and machines that came of it are still there.
        """
        from .image_template import ready

        spec = MachineSpec("any", image=image, memory_mib=memory_mib, cpus=cpus)
        return await ready(self.home, spec, _resolved, timeout_s=timeout_s, progress=progress)

    async def delete_template(self, name: str) -> None:
        """Remove a template.

        Raises:
            TemplateNotFound: there is none.
            TemplateInUse: machines that came of it are still there.
        """
        from .template import Templates

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
    ) -> Machine:
        """Make a machine of a template's moment, and let it go on; `wait` for its agent.

        Its clock is set and its random pool fed before this returns; two clones may draw the same
        numbers until Linux reseeds, within a minute. Its RAM is its own from the
        first write on, and so are its disks. With `owner_pid`, `sweep_throwaways` removes it once
        that process has ended.

        Raises:
            TemplateNotFound: there is none.
            TemplateUnfit: it does not fit the present QEMU, or is damaged.
            MachineExists: the name is taken.
        """
        from .template import Templates, clone_options, clone_spec

        found = Templates(self.home).find(template)
        found.check()
        options = clone_options(found, owner_pid)
        machine = await self._make(clone_spec(found, name), BACKEND, options)
        try:
            await machine.start(wait=wait, timeout_s=timeout_s)
        except BaseException:
            await machine.delete(force=True)
            raise
        return machine

    async def sweep_throwaways(self) -> None:
        """Remove clones whose owner was killed before it could."""
        from .template import is_orphan

        for name in self.home.names():
            if is_orphan(read_json(self.home.files(name).spec)):
                logger.info("removing machine %s: its owner has ended", name)
                with contextlib.suppress(HostctlError):  # another one is quicker
                    await self.machine(name).delete(force=True)

    def keep(self, name: str) -> None:
        """Take a clone from its owner: `sweep_throwaways` leaves it from now on. Repeatable.

        Raises:
            MachineNotFound: there is none.
        """
        files = self.home.find(name)
        kind, spec, options = _read(files)
        _write(files, kind, spec, {key: options[key] for key in options if key != "owner"})

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
            _write(files, backend, spec, options)
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
        kind, spec, _ = _read(self.home.find(machine))
        async with self.home.staging(check_name(name)) as files:
            options = await origin.clone_into(files, snapshot)
            _write(files, kind, replace(spec, name=name, is_adopted=False), options)
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
            _write(files, "foreign", spec, where.to_json())
        Journal(self.home.journal).note(spec.name, "adopted")
        return self.machine(name)

    def machine(self, name: str) -> Machine:
        """Return the machine of that name; the same object for the same machine.

        Raises:
            MachineNotFound: there is none.
        """
        files = self.home.find(name)
        kind, spec, options = _read(files)
        known = self._machines.get(name)
        if known is not None and known.spec == spec:
            return known
        machine = Machine(self.home, spec, files, open_backend(kind, spec, files, options))
        self._machines[name] = machine
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


def _write(files: MachineFiles, kind: str, spec: MachineSpec, options: Mapping[str, Any]) -> None:
    data = {"version": SPEC_VERSION, "backend": kind, "spec": spec.to_json()}
    write_json(files.spec, {**data, "options": options} if options else data)


def _read(files: MachineFiles) -> tuple[str, MachineSpec, Mapping[str, Any]]:
    data = read_json(files.spec)
    if data is None:
        raise MachineNotFound(files.name)
    if data.get("version") != SPEC_VERSION:
        raise ConfigError(
            f"{files.spec} has version {data.get('version')}, this hostctl reads {SPEC_VERSION}",
            hint="use the hostctl that made the machine",
        )
    try:
        return data["backend"], MachineSpec.from_json(data["spec"]), data.get("options") or {}
    except (KeyError, TypeError) as err:
        hint = f"remove {files.directory}"
        raise BackendError(f"{files.spec} is damaged: {err!r}", hint=hint) from err


def _resolved(spec: MachineSpec) -> MachineSpec:
    """Fill in an image's kernel, make paths absolute, and check that they are there."""
    if spec.image is not None and spec.kernel is None:
        import hostctl_images

        image = hostctl_images.find(spec.image)
        append = f"{image.append} {spec.append}".strip()
        spec = replace(spec, kernel=image.kernel, initrd=image.initrd, append=append)
    disks = tuple(replace(disk, base=_file(disk.base, "disk image")) for disk in spec.disks)
    kernel, initrd = _file(spec.kernel, "kernel"), _file(spec.initrd, "initrd")
    return replace(spec, kernel=kernel, initrd=initrd, disks=_check_disks(disks))


def _file(path: Path | None, what: str) -> Path | None:
    if path is None:
        return None
    absolute = path.absolute()
    if not absolute.is_file():
        raise ConfigError(f"{what} {path} is not a file")
    return absolute


def _check_disks(disks: tuple[DiskSpec, ...]) -> tuple[DiskSpec, ...]:
    if len(disks) > MAX_DISKS:
        raise ConfigError(f"{len(disks)} disks are too many", hint=f"use at most {MAX_DISKS}")
    return disks
