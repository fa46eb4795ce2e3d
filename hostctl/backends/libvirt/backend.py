"""Backend over libvirt: a domain's life, and its ports as streams in a connection.

libvirt is the one that knows: each state is asked for. What it cannot say is in run.json, which is
there from a start of ours to its end: since when it runs, why its accelerator was chosen, and
whether a crash was seen. Machines we made are defined from our spec at each start; those that were
adopted are never redefined.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hostctl_channels.ports import PORTS

from ...errors import (
    BackendError,
    BootFailed,
    MonitorError,
    SnapshotError,
    SnapshotExists,
    SnapshotNotFound,
    Unsupported,
)
from ...lifecycle import MachineState
from ...state import MachineFiles, put_aside, read_json, remove_tree, tail, write_atomic, write_json
from ..interface import GUEST_AGENT, MachineSpec, Progress
from ..process import find_by_words
from ..run import Run, state_at_rest
from .binding import libvirt
from .connection import Connection, borrow, give_back
from .events import DomainEvent
from .faults import DomainGone, is_absent
from .ports import Plugged, Ports, attach_port, detach_ports
from .target import Target, capabilities_of, is_local

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from ..report import BackendReport, Nic, Snapshot
    from .definition import Definition
    from .domain_xml import DomainView

__all__ = ["LibvirtBackend"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LAST_LINES = 60
LOOK_S = 1.0  # events may be lost with a connection: look now and then
# Where QEMU hangs, libvirt gives it 15 s between SIGTERM and SIGKILL.
DESTROY_S = 60.0
START_S = 120.0  # it may have to learn all about its QEMU first
UPLOAD_S = 600.0

# virDomainState, and the reasons of a shut-off one that are no orderly end.
RUNNING, BLOCKED, PAUSED, SHUTTING_DOWN, SHUT_OFF, CRASHED, SUSPENDED = range(1, 8)
ALIVE = {
    RUNNING: MachineState.RUNNING,
    BLOCKED: MachineState.RUNNING,
    SHUTTING_DOWN: MachineState.RUNNING,
    PAUSED: MachineState.PAUSED,
    SUSPENDED: MachineState.PAUSED,
}
OFF_CRASHED, OFF_FAILED, OFF_DAEMON = 3, 6, 8


class LibvirtBackend:
    """One domain."""

    def __init__(self, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any]) -> None:
        self._spec = spec
        self._files = files
        self.target = Target.from_json(options)
        self.capabilities = capabilities_of(self.target.uri)
        self.is_adopted = self.target.is_adopted
        self._borrowed: Connection | None = None

    # Life

    async def prepare(self) -> None:
        if not self.capabilities.create:
            raise self._unsupported("create", "adopt a domain that is there: hostctl adopt")
        from .journal import Journal

        self._check_boot_files()
        journal = Journal(self._files)
        for leftover in journal.leftovers(self.target.uri):
            logger.info("removing leftover domain %s", leftover.domain)
            await self._erase(leftover)
            journal.strike(leftover)
        journal.note(self._spec.name, self.target)
        try:
            await self._defined("create", lambda made: made.make(), again=False, timeout_s=UPLOAD_S)
        except BaseException:
            # What cannot be erased now stays in the journal, for the next create.
            with contextlib.suppress(BackendError):
                await self._erase(self.target)
                journal.strike(self.target)
            raise

    async def state(self) -> MachineState:
        found, reason = await self._look()
        if found in ALIVE:
            return ALIVE[found]
        is_unclean = found == CRASHED or reason in (OFF_CRASHED, OFF_FAILED)
        return state_at_rest(Run.read(self._files.run), is_unclean=is_unclean)

    def uptime_s(self) -> float | None:
        run = Run.read(self._files.run)
        return None if run is None else run.uptime_s

    async def settle(self) -> MachineState:
        self._files.sweep()
        state = await self.state()
        if state is MachineState.STOPPED:
            self._forget()
        elif state is MachineState.CRASHED:
            run = Run.read(self._files.run)
            assert run is not None
            replace(run, has_crashed=True).write(self._files.run)
            remove_tree(self._files.runtime)
        elif Run.read(self._files.run) is None:
            Run(None).write(self._files.run)
        return state

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._check_boot_files()
        accel, reason = await self._choose(progress)
        self._forget()
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_aside(self._files.console_log)
        Run(time.time(), accel, reason).write(self._files.run)
        if progress is not None:
            progress(f"starting domain {self.target.domain} at {self.target.uri}")

        def start(connect: Any) -> None:
            if not self.is_adopted:
                made = self._definition(connect)
                made.define(accel or "tcg", stop_on_reboot=stop_on_reboot)
            flags = libvirt().VIR_DOMAIN_START_PAUSED if frozen else 0
            self._domain(connect).createWithFlags(flags)

        try:
            await self._call("start", start, again=False, timeout_s=START_S)
        except BackendError as err:
            # libvirt leaves nothing of a start that failed; what runs now, somebody else started.
            self._forget()
            raise self._boot_failed(err) from err
        except BaseException:  # cancelled: it may still come up
            if not self.is_adopted:
                await self.kill()
            raise

    async def allow_reboot(self) -> None:
        if self.is_adopted:
            return  # it was started as its owner defined it

        def allow(connect: Any) -> None:
            library = libvirt()
            self._domain(connect).setLifecycleAction(
                library.VIR_DOMAIN_LIFECYCLE_REBOOT,
                library.VIR_DOMAIN_LIFECYCLE_ACTION_RESTART,
                library.VIR_DOMAIN_AFFECT_LIVE,
            )

        await self._call("allow reboots", allow)

    async def power_down(self) -> None:
        await self.resume()  # a frozen guest would never see the button
        self._files.suspended.unlink(missing_ok=True)
        await self._on_domain("power button", lambda domain: domain.shutdown())

    async def wait_gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._connection().listeners.hearing(self.target.uuid) as heard:
            while True:
                # One that cannot be reached may be alive or not.
                with contextlib.suppress(BackendError):
                    if (await self._look())[0] not in ALIVE:
                        return True
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, LOOK_S)):
                        await heard.get()

    async def kill(self) -> None:
        def destroy(connect: Any) -> None:
            domain = self._domain(connect)
            if domain.isActive():
                domain.destroy()

        with contextlib.suppress(DomainGone):
            await self._call("destroy", destroy, timeout_s=DESTROY_S)
        self._forget()

    async def pause(self) -> None:
        def pause(domain: Any) -> None:
            if domain.state(0)[0] != PAUSED:
                domain.suspend()

        await self._on_domain("pause", pause)

    async def resume(self) -> None:
        def resume(domain: Any) -> None:
            if domain.state(0)[0] == PAUSED:
                domain.resume()

        await self._on_domain("resume", resume)

    async def reset(self) -> None:
        await self.allow_reboot()
        await self._on_domain("reset", lambda domain: domain.reset(0))

    async def remove(self) -> None:
        from .journal import Journal

        if self.is_adopted:
            with contextlib.suppress(DomainGone):
                await self._defined("undefine", lambda made: made.undefine())
            return
        await self._erase(self.target)
        Journal(self._files).strike(self.target)

    async def close(self) -> None:
        connection, self._borrowed = self._borrowed, None
        if connection is not None:
            await give_back(connection)

    # Snapshots

    async def snapshots(self) -> tuple[Snapshot, ...]:
        try:
            return await self._keeping("list snapshots", lambda keeper: keeper.list())
        except DomainGone:
            return ()

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        if any(one.tag == tag for one in await self.snapshots()):
            raise SnapshotExists(self._spec.name, tag)
        paused = await self.state() is MachineState.PAUSED
        self._note(tag, {"paused": paused, "created": time.time()})
        if not await self._has_disks():
            # Its QEMU ends and another begins: whoever is connected must begin anew too.
            self._files.pulse().cut()
        await self._keeping("save a snapshot", lambda keeper: keeper.save(tag), timeout_s)

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        await self._require(tag)
        try:
            await self._keeping("load a snapshot", lambda keeper: keeper.load(tag), timeout_s)
        except Unsupported:
            raise
        except BackendError as err:
            raise SnapshotError(str(err), tag, hint=err.hint) from err

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        await self._require(tag)
        await self._keeping("delete a snapshot", lambda keeper: keeper.delete(tag), timeout_s)
        self._note(tag, None)

    # What it is, and where its ports are

    async def describe(self) -> BackendReport:
        from ..report import BackendReport

        where = f"libvirt {self.target.uri}, domain {self.target.domain}"
        try:
            shown, disks = await self._defined("describe", lambda made: made.describe())
        except DomainGone:
            return BackendReport(hypervisor=f"{where} (gone)")
        run = Run.read(self._files.run) or Run(None)
        report = BackendReport(disks=disks, hypervisor=where)
        if not (state := await self.state()).is_alive:
            return report
        return replace(
            report,
            pid=self._pid(),
            uptime_s=self.uptime_s(),
            accel=run.accel or shown.accel,
            accel_reason=run.accel_reason,
            run_state=state.value,
            nics=await self._nics(shown),
            ports=shown.ports,
        )

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        if not self.capabilities.channels:
            raise self._unsupported("channels", "only its life can be controlled")
        names: tuple[str, ...] = (*PORTS, GUEST_AGENT)
        serials: tuple[str, ...] = ("serial0", "serial1")
        if self.is_adopted:
            shown, _ = await self._defined("find ports", lambda made: made.describe())
            names = tuple(port.name for port in shown.ports if port.name)
            serials = tuple(alias for alias in shown.serials if alias)
        ports = Ports(self._connection(), self.target)
        ports.prefetch()
        # Locks of ports live there, and the host may have been rebooted since the start.
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ports.endpoints(names, serials, steal=steal)

    async def plug(self, names: Sequence[str]) -> None:
        """Add ports to the running domain, and to its definition."""
        shown, _ = await self._defined("find ports", lambda made: made.describe())
        there, plugged = {port.name for port in shown.ports}, Plugged(self._files)
        for name in names:
            if name not in there:
                plugged.note(name)  # before, so that it can be undone
                add = partial(attach_port, name=name)
                await self._on_domain(f"add port {name} to", add, again=False)

    async def unplug(self) -> None:
        plugged = Plugged(self._files)
        if names := plugged.names():
            await self._on_domain("take ports from", lambda domain: detach_ports(domain, names))
        plugged.forget()

    def hearing(self) -> AbstractContextManager[asyncio.Queue[DomainEvent]]:
        """Hear what happens to the domain, from the next call to libvirt on."""
        return self._connection().listeners.hearing(self.target.uuid)

    async def fetch_console(self) -> None:
        if self.is_adopted or not self.capabilities.console:
            return
        try:
            text = await self._defined("read the console's log", lambda made: made.console_log())
        except BackendError as err:
            if not is_absent(err):
                raise
            return
        write_atomic(self._files.console_log, text, durable=False)

    async def last_words(self) -> tuple[str, str]:
        try:
            await self.fetch_console()
        except BackendError as err:
            logger.info("machine %s: %s", self._spec.name, err)
        return "", tail(self._files.console_log, LAST_LINES)

    # How

    def _connection(self) -> Connection:
        if self._borrowed is None:
            self._borrowed = borrow(self.target.uri)
        return self._borrowed

    # These two in the owner thread

    def _domain(self, connect: Any) -> Any:
        return connect.lookupByUUIDString(self.target.uuid)

    def _definition(self, connect: Any, target: Target | None = None) -> Definition:
        from .definition import Definition

        return Definition(connect, self._spec, target or self.target)

    async def _call(
        self, what: str, work: Callable[[Any], T], *, again: bool = True, timeout_s: float = 60.0
    ) -> T:
        what = f"{what} machine {self._spec.name!r}"
        return await self._connection().call(what, work, again=again, timeout_s=timeout_s)

    async def _defined(
        self, what: str, work: Callable[[Definition], T], *, again: bool = True, **how: float
    ) -> T:
        return await self._call(what, lambda c: work(self._definition(c)), again=again, **how)

    async def _erase(self, target: Target) -> None:
        def erase(connect: Any) -> None:
            self._definition(connect, target).erase()

        await self._call("remove", erase, timeout_s=DESTROY_S)

    async def _on_domain(
        self, what: str, work: Callable[[Any], object], *, again: bool = True
    ) -> None:
        await self._call(what, lambda connect: work(self._domain(connect)), again=again)

    async def _look(self) -> tuple[int, int]:
        """Return libvirt's state and reason; (0, 0) of a domain of ours that is gone."""

        def look(connect: Any) -> tuple[int, int]:
            state, reason = self._domain(connect).state(0)
            return int(state), int(reason)

        try:
            return await self._call("look at", look)
        except DomainGone:
            if self.is_adopted:
                raise
            return 0, 0

    async def _keeping(self, what: str, work: Callable[[Any], T], timeout_s: float = 60.0) -> T:
        """Do something with the snapshots, wherever this domain keeps them."""
        from .snapshot import DiskSnapshots, MemorySnapshots

        has_disks = await self._has_disks()
        notes = read_json(self._files.snapshots) or {}

        def do(connect: Any) -> T:
            domain = self._domain(connect)
            if has_disks:
                return work(DiskSnapshots(domain, notes))
            return work(MemorySnapshots(connect, domain, self._definition(connect).storage, notes))

        return await self._call(what, do, again=False, timeout_s=timeout_s)

    async def _has_disks(self) -> bool:
        # Somebody else's domain has no files of ours; and the test driver keeps its own.
        return bool(self._spec.disks) or self.is_adopted

    async def _require(self, tag: str) -> None:
        if all(one.tag != tag for one in await self.snapshots()):
            raise SnapshotNotFound(self._spec.name, tag)

    async def _choose(self, progress: Progress | None) -> tuple[str | None, str | None]:
        if self.is_adopted:
            return None, None
        if not is_local(self.target.uri) and self._spec.accel == "auto":
            return "tcg", "another host's KVM cannot be tried from here; ask for it by --accel kvm"
        from ..accel import choose

        choice = await choose(self._spec, self._files, progress)
        return choice.accel, choice.reason

    async def _nics(self, shown: DomainView) -> tuple[Nic, ...] | None:
        """Return what the live XML shows; of a machine of ours, what QEMU itself shows.

        Words for QEMU's command line are not in the XML.
        """
        if self.is_adopted:
            return shown.nics
        from ..inventory import network_devices
        from .passthrough import Passthrough

        try:
            return await network_devices(Passthrough(self._connection(), self.target.uuid))
        except (MonitorError, BackendError, ImportError) as err:
            logger.warning("machine %s: %s", self._spec.name, err)
            return None if self._spec.extra_args else shown.nics

    def _pid(self) -> int | None:
        """Return the pid of QEMU, where it is on this host: libvirt does not tell."""
        if not is_local(self.target.uri):
            return None
        return find_by_words("-uuid", self.target.uuid)

    def _unsupported(self, capability: str, way_out: str) -> Unsupported:
        return Unsupported(
            f"libvirt at {self.target.uri} has no {capability!r} for machine {self._spec.name!r}",
            capability,
            hint=way_out,
        )

    def _check_boot_files(self) -> None:
        """Look for the bases that QEMU reads where they are; all else was copied at creation."""
        for disk in self._spec.disks if is_local(self.target.uri) else ():
            if disk.base is not None and not disk.base.is_file():
                raise BootFailed(
                    f"machine {self._spec.name!r}: {disk.base} is gone",
                    hint="put it back, or create the machine anew",
                )

    def _boot_failed(self, err: BackendError) -> BootFailed:
        said = str(err)
        reason = said.splitlines()[-1]
        return BootFailed(
            f"machine {self._spec.name!r}: it did not start: {reason}",
            stderr=said,
            hint=err.hint or "see the log of the domain on its host, /var/log/libvirt/qemu",
        )

    def _forget(self) -> None:
        self._files.run.unlink(missing_ok=True)
        self._files.suspended.unlink(missing_ok=True)
        remove_tree(self._files.runtime)

    def _note(self, tag: str, note: Mapping[str, Any] | None) -> None:
        notes = read_json(self._files.snapshots) or {}
        notes.pop(tag, None)
        if note is not None:
            notes[tag] = note
        write_json(self._files.snapshots, notes)
