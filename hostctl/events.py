"""What happens to machines, as it happens, whoever made it happen.

Two sources: the journal, in which every hostctl process writes what it does; and a look at each
machine now and then, which finds what nobody did: a crash, a guest that turned itself off, an agent
that fell silent, a job that ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .errors import HostctlError
from .journal import Event, Journal
from .lifecycle import MachineState

if TYPE_CHECKING:
    from .controller import Controller
    from .machine import Machine

__all__ = ["Event", "Watcher"]

_JOURNAL_S: Final = 0.1  # the journal is one stat away
_LOOK_S: Final = 0.5  # a state is a look at a process
_EXPLAINED_S: Final = 1.0  # for whoever made it happen to write it down
_ANSWER_S: Final = 5.0  # an agent under emulation and load stalls for seconds

# What a machine is after an act; what is found otherwise happened without us.
_AFTER: Final = {
    "created": MachineState.STOPPED,
    "started": MachineState.RUNNING,
    "stopped": MachineState.STOPPED,
    "paused": MachineState.PAUSED,
    "resumed": MachineState.RUNNING,
    "reset": MachineState.RUNNING,
}
_FOUND: Final = {
    MachineState.RUNNING: "started",
    MachineState.PAUSED: "paused",
    MachineState.STOPPED: "stopped",
    MachineState.CRASHED: "crashed",
}


@dataclass(slots=True)
class _Known:
    """What we last told of a machine."""

    state: MachineState
    agent: bool | None = None
    jobs: set[str] = field(default_factory=set)  # that run
    doubted_since: float | None = None
    next_beat: float = 0.0


class Watcher:
    """Watches the machines that `wanted` lets through, those that appear later too."""

    def __init__(
        self,
        controller: Controller,
        wanted: Callable[[str], bool],
        heartbeat_s: float | None,
        *,
        every_beat: bool,
    ) -> None:
        self._controller = controller
        self._wanted = wanted
        self._heartbeat_s = heartbeat_s
        self._every_beat = every_beat
        self._journal = Journal(controller.home.journal)
        self._known: dict[str, _Known] = {}
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._beats: dict[str, asyncio.Task[None]] = {}

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens from now on, without end; leave by closing the iterator."""
        self._journal.skip()
        for machine in self._machines():
            await self._meet(machine)
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                taking = asyncio.create_task(self._queue.get())
                await asyncio.wait({taking, watching}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    watching.result()
                yield taking.result()
        finally:
            for task in (watching, *self._beats.values()):
                task.cancel()
            await asyncio.gather(watching, *self._beats.values(), return_exceptions=True)

    async def _watch(self) -> None:
        next_look = 0.0
        while True:
            self._hear()
            if time.monotonic() >= next_look:
                await self._look()
                next_look = time.monotonic() + _LOOK_S
            await asyncio.sleep(_JOURNAL_S)

    def _machines(self) -> Iterable[Machine]:
        return (machine for machine in self._controller.machines() if self._wanted(machine.name))

    async def _meet(self, machine: Machine) -> None:
        with contextlib.suppress(HostctlError):
            self._known[machine.name] = _Known(await machine.state())

    # What was done

    def _hear(self) -> None:
        for event in self._journal.read():
            if self._wanted(event.machine):
                self._learn(event)
                self._queue.put_nowait(event)

    def _learn(self, event: Event) -> None:
        if event.kind == "deleted":
            self._known.pop(event.machine, None)
            return
        state = _AFTER.get(event.kind)
        if event.kind == "restored":
            state = MachineState.PAUSED if event.detail.get("paused") else MachineState.RUNNING
        known = self._known.setdefault(event.machine, _Known(state or MachineState.STOPPED))
        known.state = state or known.state
        known.doubted_since = None
        if event.kind == "job-started":
            known.jobs.add(str(event.detail.get("job")))
        if event.kind in ("started", "reset", "restored"):
            known.agent, known.next_beat = None, 0.0

    # What is found

    async def _look(self) -> None:
        machines = list(self._machines())
        await asyncio.gather(*map(self._compare, machines))
        for gone in set(self._known) - {machine.name for machine in machines}:
            del self._known[gone]

    async def _compare(self, machine: Machine) -> None:
        if machine.name not in self._known:
            await self._meet(machine)
            return
        try:
            state = await machine.state()
        except HostctlError:  # it is just being deleted, or its hypervisor is away
            return
        known = self._known.get(machine.name)
        if known is None:
            return
        if state is known.state:
            known.doubted_since = None
        else:
            self._doubt(machine.name, known, state)
        if state is MachineState.RUNNING and self._heartbeat_s is not None:
            self._beat(machine, known)

    def _doubt(self, name: str, known: _Known, state: MachineState) -> None:
        """Tell of a change once nobody has owned up to it."""
        now = time.monotonic()
        known.doubted_since = known.doubted_since or now
        if now - known.doubted_since < _EXPLAINED_S:
            return
        kind = "resumed" if known.state is MachineState.PAUSED else _FOUND.get(state, state.value)
        if state is not MachineState.RUNNING:
            kind = _FOUND.get(state, state.value)
        known.state, known.doubted_since = state, None
        known.agent = known.agent if state.is_alive else None
        known.jobs = known.jobs if state.is_alive else set()
        self._tell(name, kind, found=True)

    def _beat(self, machine: Machine, known: _Known) -> None:
        assert self._heartbeat_s is not None
        running = self._beats.get(machine.name)
        if time.monotonic() < known.next_beat or (running is not None and not running.done()):
            return
        known.next_beat = time.monotonic() + self._heartbeat_s
        self._beats[machine.name] = asyncio.create_task(self._ask(machine, known))

    async def _ask(self, machine: Machine, known: _Known) -> None:
        """See whether the agent answers, and which jobs have ended."""
        detail: dict[str, Any] = {}
        try:
            async with asyncio.timeout(_ANSWER_S):
                detail["ping_s"] = round(await machine.ping(), 4)
            answers = True
        except (HostctlError, TimeoutError) as err:
            answers, detail = False, {"reason": str(err) or f"no answer in {_ANSWER_S:g} s"}
        if known.state is not MachineState.RUNNING or self._known.get(machine.name) is not known:
            return  # paused or stopped meanwhile: its silence means nothing
        if answers is not known.agent:
            known.agent = answers
            self._tell(machine.name, "agent-up" if answers else "agent-down", **detail)
        elif answers and self._every_beat:
            self._tell(machine.name, "alive", **detail)
        if answers:
            await self._ask_jobs(machine, known)

    async def _ask_jobs(self, machine: Machine, known: _Known) -> None:
        before = set(known.jobs)  # one that begins while we ask is not in the answer
        with contextlib.suppress(HostctlError, TimeoutError):
            async with asyncio.timeout(2 * _ANSWER_S):
                jobs = {job.id: job for job in await machine.jobs()}
            running = {id for id, job in jobs.items() if job.state == "running"}
            for id in (before - running) & set(jobs):
                end = jobs[id].exit
                self._tell(machine.name, "job-ended", job=id, end=str(end or "lost"))
            known.jobs = (known.jobs - before) | running

    def _tell(self, name: str, kind: str, **detail: object) -> None:
        self._queue.put_nowait(Event(name, kind, time.time(), detail))
