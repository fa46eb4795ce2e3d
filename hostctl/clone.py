"""Clones: machines that begin at a template's moment, and go with the process that owns them.

Owns what makes a clone of a machine: its spec and options, the marks in its folder that say who
makes it and whether it waits, its scripts; and what becomes of it when its owner or its maker is
killed. The moment is the template's; those that wait to be handed out are pool.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .backends.interface import DiskSpec
from .backends.process import ProcessId
from .errors import HostctlError
from .memory import check_memory
from .onclone import run_scripts
from .record import Record, read_options
from .state import MachineFiles, read_json, write_atomic

if TYPE_CHECKING:
    from .controller import Controller
    from .machine import Machine
    from .template import Template

__all__ = ["CloneOptions", "Cloner", "gone_on_failure", "set_owner"]

logger = logging.getLogger(__name__)

AT_ONCE: Final = 16  # as many as a group of machines is told things at once


class CloneOptions(NamedTuple):
    """How a clone begins, beside its template; see Controller.clone."""

    timeout_s: float = 60
    wait: bool = True
    owner_pid: int | None = None
    on_clone: str | None = None


class Cloner:
    """Makes the clones of a home, and removes those that are nobody's."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._home = controller.home

    async def template(self, name: str, count: int, *, overcommit: bool) -> Template:
        """Return a template that fits, and that there is memory for `count` clones of.

        Raises:
            TemplateNotFound, TemplateUnfit: see TemplateBuilder.ensure.
            MemoryShort: see memory.py; never with `overcommit`.
        """
        from .template_builder import TemplateBuilder

        found = await TemplateBuilder(self._home).ensure(name, None)
        if not overcommit:
            check_memory(self._home, name, found.spec.memory_mib, count)
        return found

    async def make(
        self, template: Template, name: str, options: CloneOptions, *, pool: str | None = None
    ) -> Machine:
        """Make a clone and let it go on; for a `pool`, it waits there from its first moment on.

        Raises:
            MachineExists: the name is taken.
            BootFailed: it did not go on. HookFailed: a script failed. Nothing is kept.
        """
        files = self._home.files(name)
        if files.newborn.exists():
            await self._controller.sweep_throwaways()
        scripts = [template.on_clone, options.on_clone]
        machine = await self._controller._make(
            _record(template, name, options.owner_pid, pool),
            made=_mark_newborn if pool is None else _mark_waiting,
        )
        async with gone_on_failure(machine):
            await machine.start(wait=options.wait or any(scripts), timeout_s=options.timeout_s)
            if any(scripts):
                await run_scripts(machine, scripts, options.timeout_s)
            files.newborn.unlink(missing_ok=True)
        return machine

    async def make_all(
        self, template: Template, names: Sequence[str], options: CloneOptions
    ) -> tuple[Machine, ...]:
        """Make several, some at a time: all, or none."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def make(name: str) -> Machine:
            async with turns:
                return await self.make(template, name, options)

        return await _all_or_none([asyncio.ensure_future(make(name)) for name in names])

    async def sweep(self) -> None:
        """Remove clones whose owner has ended, or whose maker had before they were whole."""
        for name in self._home.names():
            if _is_orphan(self._home.files(name)):
                logger.info("removing machine %s: its owner has ended", name)
                with contextlib.suppress(HostctlError):  # another one is quicker
                    await self._controller.machine(name).delete(force=True)


def set_owner(files: MachineFiles, pid: int) -> None:
    """Write down the process that a clone goes with from now on, for `sweep`."""
    record = read_json(files.spec) or {}
    owned = {**record, "options": {**(record.get("options") or {}), **_owner(pid)}}
    # Its process, too, ends with the host.
    write_atomic(files.spec, json.dumps(owned).encode(), durable=False)


@contextlib.asynccontextmanager
async def gone_on_failure(machine: Machine) -> AsyncIterator[None]:
    """Delete a clone that does not come to be what was asked for."""
    try:
        yield
    except BaseException:
        await machine.delete(force=True)
        raise


async def _all_or_none(making: list[asyncio.Future[Machine]]) -> tuple[Machine, ...]:
    """Wait for all machines; should one fail, delete the others."""
    try:
        return tuple(await asyncio.gather(*making))
    except BaseException:
        for future in making:
            future.cancel()
        for made in await asyncio.gather(*making, return_exceptions=True):
            if not isinstance(made, BaseException):
                await made.delete(force=True)
        raise


def _record(template: Template, name: str, owner_pid: int | None, pool: str | None) -> Record:
    """Return what a clone is; `sweep` and its pool remember theirs in its options."""
    disks = tuple(
        DiskSpec(template.folder / "disks" / f"disk{n}.qcow2", format="qcow2")
        for n in range(len(template.spec.disks))
    )
    options: dict[str, Any] = {"template": str(template.folder)}
    if pool is not None:
        options["pool"] = pool
    if owner_pid is not None:
        options |= _owner(owner_pid)
    return Record("qemu", replace(template.spec, name=name, disks=disks), options)


def _owner(pid: int) -> dict[str, Any]:
    owner = ProcessId.of(pid)
    return {} if owner is None else {"owner": asdict(owner)}


def _mark_newborn(files: MachineFiles) -> None:
    """Write down who makes a clone."""
    maker = ProcessId.of(os.getpid())
    assert maker is not None
    write_atomic(files.newborn, json.dumps(asdict(maker)).encode(), durable=False)


def _mark_waiting(files: MachineFiles) -> None:
    """Hide a clone of a pool, from its first moment on."""
    files.waiting.touch(mode=0o600)


def _is_orphan(files: MachineFiles) -> bool:
    """Tell whether a machine's owner has ended, or its maker before it was whole."""
    owner = read_options(files).get("owner") or read_json(files.newborn)
    return owner is not None and not ProcessId(**owner).is_alive
