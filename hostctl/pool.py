"""Pools: clones of a template that wait, warm, one awake and the rest frozen, to be taken at once.

There is no daemon. A waiting clone is a machine with a file `waiting` in its folder: as long as it
is there nobody lists it, and whoever removes it, holding the machine's lock, has taken the machine.
Who takes one starts a process that fills the pool up again and ends. Whatever is killed, at
whatever step, is put right by the next of these processes: only they make and remove what waits,
one at a time in each pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import procs
from .clone import CloneOptions, Cloner, gone_on_failure, set_owner
from .errors import Busy, ConfigError, HostctlError, MachineNotFound, PoolNotFound
from .lifecycle import MachineState
from .memory import check_memory
from .onclone import run_scripts
from .record import read_options
from .state import locked, read_json, remove_tree, tail, write_atomic, write_json

if TYPE_CHECKING:
    from .backends.interface import Progress
    from .controller import Controller
    from .machine import Machine
    from .template import Template

__all__ = ["Pool", "Pools", "member_name"]

logger = logging.getLogger(__name__)

VERSION: Final = 1
FROZEN: Final = b"frozen\n"
AWAKE: Final = b"awake\n"  # the next to be taken: its clock is right
BROKEN: Final = b"broken\n"
READY: Final = {FROZEN: MachineState.PAUSED, AWAKE: MachineState.RUNNING}
# Programs by their paths: `true` alone a shell may do by itself, and start nothing.
WARM: Final = ("/bin/sh", "-c", "/bin/true; :")
WARM_TIMES: Final = 3  # 56, 13 and 12 ms under emulation: then the code is translated
# What was taken has the CPUs to itself for its first commands; and takes in a row are counted once.
LATER_S: Final = 0.3
ANSWER_S: Final = 5.0  # for one that is awake
REOPEN_S: Final = 0.1  # hung up on, its agent opens its port anew: a greeting meanwhile is lost
FILL_S: Final = 600.0  # how long one process may fill before the next gives up waiting for it
MAX_SIZE: Final = 256
NAME_LIMIT: Final = 40  # of a template's, in a member's: room for its sockets' paths


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as it is now. `note` is what kept it from being full, if anything did."""

    template: str
    size: int
    ready: int
    overcommit: bool
    note: str = ""


class Pools:
    """The pools of a home. What they do to machines, they do through its controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._home = controller.home

    async def list(self) -> tuple[Pool, ...]:
        """Return all, sorted by template."""
        try:
            names = sorted(os.listdir(self._home.pools))
        except FileNotFoundError:
            return ()
        return tuple([pool for name in names if (pool := await self._look(name)) is not None])

    async def find(self, template: str) -> Pool:
        """Return a pool. Raises PoolNotFound."""
        pool = await self._look(template)
        if pool is None:
            raise PoolNotFound(template)
        return pool

    def has(self, template: str) -> bool:
        """Tell whether there is a pool of that template."""
        return self._record(template).exists()

    async def create(
        self, template: Template, size: int, *, overcommit: bool, progress: Progress | None = None
    ) -> Pool:
        """Keep `size` clones waiting from now on; return when they wait. Resizes one that is there.

        Raises:
            MemoryShort: they may need more than there is; nothing was changed.
        """
        name = template.name
        if not overcommit:
            pool = await self._look(name)
            missing = max(0, size - (0 if pool is None else pool.ready))
            check_memory(self._home, name, template.spec.memory_mib, missing)
        self._write(name, size, overcommit)
        await self.fill(name, progress)
        return await self.find(name)

    def _write(self, template: str, size: int, overcommit: bool) -> None:
        """Write down how many clones shall wait; `fill` makes it true."""
        if not 1 <= size <= MAX_SIZE:
            raise ConfigError(f"a pool of {size} is out of range", hint=f"use 1 to {MAX_SIZE}")
        record = self._record(template)
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(record, {"version": VERSION, "size": size, "overcommit": overcommit})

    async def delete(self, template: str) -> None:
        """Remove a pool, and what waits in it. Raises PoolNotFound."""
        await self.find(template)
        self._record(template).unlink(missing_ok=True)
        await self.drain(template)
        remove_tree(self._home.pools / template)

    async def take(self, template: str, options: CloneOptions) -> Machine | None:
        """Hand out a clone that waits, if one does; it runs, and its clock is right.

        A pool is filled up meanwhile, by a process of its own.

        Raises:
            TemplateNotFound, TemplateUnfit: see TemplateBuilder.ensure.
            HookFailed: the script failed. The clone is gone.
        """
        from .template_builder import TemplateBuilder

        if not self.has(template):
            return None
        await TemplateBuilder(self._home).ensure(template, None)
        machine = await self._take(template, options.owner_pid)
        try:
            self._spawn_fill(template)
        except (HostctlError, OSError) as err:  # the machine is theirs all the same
            logger.warning("a pool is not filled up: %s", err)
        if machine is not None and options.on_clone:
            async with gone_on_failure(machine):
                await run_scripts(machine, [options.on_clone], options.timeout_s)
        return machine

    async def _take(self, template: str, owner_pid: int | None) -> Machine | None:
        waiting = [name for name in self._home.waiting() if self._is_ready(template, name)]
        random.shuffle(waiting)  # who takes at the same time shall not try the same ones
        waiting.sort(key=self._is_awake, reverse=True)
        for name in waiting:
            if (machine := await self._claim(name, owner_pid)) is not None:
                return machine
        return None

    async def fill(self, template: str, progress: Progress | None = None) -> None:
        """Make what the pool lacks, and remove what it has too much, or broken.

        Returns at once when another process will count after this call: each of two that fill, the
        one at work and the next, begins with counting.
        """
        async with self._turn(template) as is_ours:
            if not is_ours:
                return
            await self._sweep(template)
            await self._rouse(template)
            while (pool := await self._look(template)) is not None and pool.ready < pool.size:
                if progress is not None:
                    progress(f"{template}: {pool.ready} of {pool.size} ready")
                await self._make(pool)
                await self._rouse(template)

    def _spawn_fill(self, template: str) -> None:
        """Start a process that fills the pool, unless one is about to."""
        if _is_locked(self._lock(template, "next")):
            return
        # -P, and our own path: it shall run this hostctl, whatever folder we were started in.
        argv = [sys.executable, "-P", "-m", "hostctl", "pool", "fill", template]
        later = ["sh", "-c", f'sleep {LATER_S}; exec "$@"', "fill"]
        environ = {
            "HOSTCTL_STATE_DIR": str(self._home.state),
            "HOSTCTL_RUNTIME_DIR": str(self._home.runtime),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        procs.spawn_detached([*later, *argv], self._log(template), environ)

    async def drain(self, template: str) -> None:
        """Remove all that waits."""
        async with locked(self._lock(template, "work"), f"pool {template!r}", "drain", FILL_S):
            for name in self._members(template):
                await self._remove(name)

    async def sweep(self) -> None:
        """Remove what waits in pools that were deleted, by a hostctl that was killed doing so."""
        for template in {self._template(name) for name in self._home.waiting()}:
            if template and not self.has(template):
                await self.fill(template)

    async def _claim(self, name: str, owner_pid: int | None) -> Machine | None:
        """Take a machine, if it is still nobody's, and goes on.

        It is theirs by the last step: killed before, we have woken a clone that still waits.
        """
        with contextlib.suppress(Busy, MachineNotFound):  # somebody else is at it
            machine = self._controller.machine(name)
            async with machine.lock.held("hand out", timeout_s=0, thaw=False):
                if await self._wake(machine):
                    if owner_pid is not None:
                        set_owner(self._home.files(name), owner_pid)
                    self._home.files(name).waiting.unlink()
                    machine._note("taken")
                    return machine
        return None

    async def _wake(self, machine: Machine) -> bool:
        """Let a machine go on if it still waits; mark it if it cannot. We hold its lock."""
        waiting = self._home.files(machine.name).waiting
        word = _word(waiting)
        if word not in READY:
            return False
        try:
            await (machine._connect(ANSWER_S) if word == AWAKE else machine._wake())
        except (HostctlError, TimeoutError) as err:
            logger.warning("machine %s of a pool does not go on: %s", machine.name, err)
            _mark(waiting, BROKEN)
            return False
        return True

    async def _rouse(self, template: str) -> None:
        """See that one is awake, if any waits."""
        waiting = [name for name in self._members(template) if self._is_ready(template, name)]
        if any(map(self._is_awake, waiting)):
            return
        for name in waiting:
            with contextlib.suppress(Busy, MachineNotFound):  # it is being taken
                machine = self._controller.machine(name)
                async with machine.lock.held("wake", timeout_s=0, thaw=False):
                    if await self._wake(machine):
                        await machine.close()
                        await asyncio.sleep(REOPEN_S)
                        return _mark(self._home.files(name).waiting, AWAKE)

    async def _make(self, pool: Pool) -> None:
        """Make one clone, warm it up, freeze it, and only then call it ready."""
        from .template import Templates

        found = Templates(self._home).fitting(pool.template)
        if not pool.overcommit:
            check_memory(self._home, pool.template, found.spec.memory_mib, 1)
        name = member_name(pool.template)
        machine = await Cloner(self._controller).make(
            found, name, CloneOptions(), pool=pool.template
        )
        waiting = self._home.files(name).waiting
        try:
            for _ in range(WARM_TIMES):
                await machine.exec(*WARM)
                await machine._set_clock()
            # Hung up on, the agent would open its port anew, and a greeting be lost meanwhile.
            await machine.pause()
            await machine.close()
            _mark(waiting, FROZEN)
        except BaseException:
            await machine.delete(force=True)
            raise

    async def _sweep(self, template: str) -> None:
        """Remove what is broken, half made, or more than the pool's size. We hold its lock."""
        pool = await self._look(template)
        left = 0 if pool is None else pool.size
        for name in self._members(template):
            if left and self._is_ready(template, name) and await self._is_as_said(name):
                left -= 1
            else:
                await self._remove(name)

    async def _is_as_said(self, name: str) -> bool:
        """Tell whether its state is that of its mark: not so of one that a killed hostctl woke."""
        with contextlib.suppress(HostctlError):
            word = _word(self._home.files(name).waiting)
            return word in READY and await self._controller.machine(name).state() is READY[word]
        return False

    async def _remove(self, name: str) -> None:
        """Remove what waits; what is being taken meanwhile is theirs, and stays."""
        with contextlib.suppress(MachineNotFound, Busy):  # another one is quicker
            machine = self._controller.machine(name)
            async with machine.lock.held("remove", thaw=False):
                if not self._home.files(name).waiting.exists():
                    return
                _mark(self._home.files(name).waiting, BROKEN)  # nobody takes it from now on
            await machine.delete(force=True)

    async def _look(self, template: str) -> Pool | None:
        data = read_json(self._record(template))
        if data is None or data.get("version") != VERSION:
            return None
        waiting = [name for name in self._home.waiting() if self._is_ready(template, name)]
        ready = sum([await self._is_as_said(name) for name in waiting])
        note = "" if ready >= data["size"] else self._note(template)
        return Pool(template, data["size"], ready, data["overcommit"], note)

    def _note(self, template: str) -> str:
        if _is_locked(self._lock(template, "work")):
            return "being filled"
        return tail(self._log(template), 1).removeprefix("hostctl: ")

    def _members(self, template: str) -> Iterator[str]:
        for name in self._home.waiting():
            if self._template(name) == template:
                yield name

    def _template(self, name: str) -> str | None:
        found: str | None = read_options(self._home.files(name)).get("pool")
        return found

    def _is_ready(self, template: str, name: str) -> bool:
        if not name.startswith(template[:NAME_LIMIT]):
            return False
        is_ready = _word(self._home.files(name).waiting) in READY
        return is_ready and self._template(name) == template

    def _is_awake(self, name: str) -> bool:
        return _word(self._home.files(name).waiting) == AWAKE

    def _record(self, template: str) -> Path:
        return self._home.pools / template / "pool.json"

    def _log(self, template: str) -> Path:
        return self._home.pools / template / "log"

    def _lock(self, template: str, which: str) -> Path:
        return self._home.runtime / f".p-{template}.{which}"

    @contextlib.asynccontextmanager
    async def _turn(self, template: str) -> AsyncIterator[bool]:
        """Yield True when it is our turn to fill, False when another waits for its turn already."""
        what = f"pool {template!r}"
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with locked(self._lock(template, "next"), what, "wait to fill", 0):
                    work = locked(self._lock(template, "work"), what, "fill", FILL_S)
                    await stack.enter_async_context(work)
            except Busy:
                yield False
                return
            yield True


def member_name(template: str) -> str:
    """Return a name for a clone that needs none of its own."""
    return f"{template[:NAME_LIMIT]}-{os.urandom(4).hex()}"


def _mark(waiting: Path, word: bytes) -> None:
    """Say something else of a machine that waits."""
    write_atomic(waiting, word, durable=False)


def _word(waiting: Path) -> bytes:
    """Return what is said of a machine, or nothing if it does not wait."""
    try:
        return waiting.read_bytes()
    except FileNotFoundError:
        return b""


def _is_locked(path: Path) -> bool:
    """Tell whether somebody holds a lock, without waiting for it."""
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
