"""Backend over VirtualBox: a machine's life, by whichever driver there is.

VirtualBox is the one that knows: each state is asked for. What it cannot say is in run.json, which
is there from a start of ours to its end: since when it runs, and whether a crash was seen. Machines
that were adopted are never changed, but for what is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import GUEST_CONTROL, SERIAL

from ...errors import (
    BackendError,
    BootFailed,
    ConfigError,
    SnapshotError,
    SnapshotExists,
    SnapshotNotFound,
    Unsupported,
)
from ...lifecycle import MachineState
from ...state import MachineFiles, put_aside, remove_tree, tail
from ..interface import CONSOLE, MachineSpec, Progress
from ..run import Run, state_at_rest
from .choice import open_driver
from .console import ConsoleEndpoint, is_abandoned
from .driver import Blueprint, Driver, UartPlan
from .faults import NotFound, VirtualBoxError
from .folder import Folders
from .seen import Disk, Live, Saved, VmState
from .target import CAPABILITIES, Target, way_of
from .vm_process import POWER_OFF_S, VmProcess

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from ..report import BackendReport, DiskReport, Nic, Snapshot

__all__ = ["VirtualBoxBackend"]

logger = logging.getLogger(__name__)

LAST_LINES: Final = 60
MAX_CONSOLE: Final = 64 << 20  # the guest writes it, and must not fill the host's disk
TURN_RESET: Final = "VBoxInternal2/TurnResetIntoPowerOff"  # heeded by a machine that runs, too
PAUSED_NOTE: Final = "saved while paused"  # VirtualBox itself does not remember that
ENGINES: Final = {"HwVirt": "hardware", "NativeApi": "native", "Interpreter": "tcg"}


class VirtualBoxBackend:
    """One machine of VirtualBox."""

    capabilities = CAPABILITIES

    def __init__(self, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any]) -> None:
        self._spec = spec
        self._files = files
        self._folders = Folders(files)
        self._driver: Driver | None = None
        self._opening = asyncio.Lock()
        self._console: ConsoleEndpoint | None = None
        self.target = Target.from_json(options)
        self.is_adopted = self.target.is_adopted
        self._process = VmProcess(self.driver, self.target)

    # Life

    async def prepare(self) -> None:
        from .disks import make_disks

        self._check_spec()
        driver = await self.driver()
        for leftover in self._folders.leftovers(self.target.place):
            logger.info("removing leftover machine %s", leftover.name)
            await self._erase(leftover)
        folder = self._folders.note(self._spec.name, self.target)
        try:
            disks = await asyncio.to_thread(make_disks, folder, self._spec.disks)
            await driver.create(
                Blueprint(
                    id=self.target.id,
                    name=self.target.name,
                    folder=self._folders.root,
                    memory_mib=self._spec.memory_mib,
                    cpus=self._spec.cpus,
                    is_emulated=self._spec.accel == "tcg",
                    disks=disks,
                )
            )
        except BaseException:
            # What cannot be erased now keeps its folder, for the next create.
            with contextlib.suppress(BackendError):
                await self._erase(self.target)
            raise

    async def state(self) -> MachineState:
        seen = (await self._process.look()).state.as_ours
        if seen.is_alive:
            return seen
        return state_at_rest(Run.read(self._files.run), is_unclean=seen is MachineState.CRASHED)

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
        else:
            if Run.read(self._files.run) is None:
                Run(None).write(self._files.run)
            await self._settle_console()
        return state

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._check_boot_files()
        self._forget()
        put_aside(self._files.console_log)
        Run(time.time()).write(self._files.run)
        if progress is not None:
            progress(f"starting {self.target.name} on VirtualBox")
        try:
            await self._launch(stop_on_reboot=stop_on_reboot, frozen=frozen)
        except BackendError as err:
            failure = self._boot_failed(err)
            with contextlib.suppress(BackendError):
                await self.kill()
            raise failure from err
        except BaseException:  # cancelled: it may still come up
            if not self.is_adopted:
                await self.kill()
            raise

    async def allow_reboot(self) -> None:
        if not self.is_adopted:  # it was started as its owner wants it
            await (await self.driver()).set_extra(self.target.id, TURN_RESET, "")

    async def power_down(self) -> None:
        await self.resume()  # a frozen guest would never see the button
        self._files.suspended.unlink(missing_ok=True)
        await (await self.driver()).power_button(self.target.id)

    async def wait_gone(self, timeout_s: float) -> bool:
        return await self._process.wait_gone(timeout_s)

    async def kill(self) -> None:
        await self._process.end()
        self._forget()

    async def save(self) -> None:
        await (await self.driver()).save_state(self.target.id)
        self._forget()

    async def is_saved(self) -> bool:
        return (await self._process.look()).state in (VmState.SAVED, VmState.ABORTED_SAVED)

    async def pause(self) -> None:
        await (await self.driver()).pause(self.target.id)

    async def resume(self) -> None:
        await (await self.driver()).resume(self.target.id)

    async def reset(self) -> None:
        await self.allow_reboot()
        await (await self.driver()).reset(self.target.id)

    async def remove(self) -> None:
        if self.is_adopted:
            with contextlib.suppress(NotFound):
                await (await self.driver()).remove(self.target.id, media=False)
            return
        await self._erase(self.target)

    async def close(self) -> None:
        if self._console is not None:
            await self._console.close()
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def driver(self) -> Driver:
        """Return what speaks to VirtualBox, opened on use."""
        async with self._opening:
            if self._driver is None:
                self._driver = await open_driver(self.target.place)
            return self._driver

    # Snapshots

    async def snapshots(self) -> tuple[Snapshot, ...]:
        from ..report import Snapshot

        return tuple(
            Snapshot(
                tag=one.tag,
                created=datetime.fromtimestamp(one.created_s, UTC),
                vm_state_bytes=one.ram_bytes,
                has_ram=one.has_ram,
                paused=one.note == PAUSED_NOTE,
            )
            for one in await self._saved()
        )

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        if any(one.tag == tag for one in await self._saved()):
            raise SnapshotExists(self._spec.name, tag)
        paused = (await self._process.look()).state is VmState.PAUSED
        note = PAUSED_NOTE if paused else ""
        await (await self.driver()).save_snapshot(self.target.id, tag, note, timeout_s)

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        """See Backend. VirtualBox restores only what does not run: its process begins anew.

        Raises:
            SnapshotError: before the process was ended nothing is lost; after it, the machine is
                stopped, and its present state is gone.
        """
        snapshot = await self._require(tag)
        driver = await self.driver()
        await self._process.end()
        try:
            await driver.restore_snapshot(self.target.id, snapshot.id, timeout_s)
            await self._launch(stop_on_reboot=False, frozen=True)
        except BackendError as err:
            self._forget()
            raise SnapshotError(f"{err}; the machine is stopped", tag, hint=err.hint) from err

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        snapshot = await self._require(tag)
        try:
            await (await self.driver()).delete_snapshot(self.target.id, snapshot.id, timeout_s)
        except VirtualBoxError as err:  # it has children in plenty, or clones
            raise SnapshotError(str(err), tag, hint="delete newer snapshots first") from err

    async def clone(self, name: str, files: MachineFiles, tag: str | None) -> Mapping[str, Any]:
        """Make a linked clone of a snapshot, `tag` or the newest; return the clone's options.

        Raises:
            SnapshotNotFound: there is none.
        """
        from ..interface import check_name

        snapshot = await self._require(tag)
        target = replace(Target.new(check_name(name), ""), place=self.target.place)
        folders = Folders(files)
        folders.note(name, target)
        try:
            await (await self.driver()).clone(
                self.target.id, snapshot.id, target.id, target.name, folders.root
            )
        except BaseException:
            with contextlib.suppress(BackendError):
                await self._erase(target)
            raise
        return target.to_json()

    # What it is, and where its lines are

    async def describe(self) -> BackendReport:
        from ..report import BackendReport

        driver = await self.driver()
        where = f"VirtualBox {await driver.version()} ({driver.word}), machine {self.target.name}"
        try:
            view = await driver.view(self.target.id)
        except NotFound:
            return BackendReport(hypervisor=f"{where} (gone)")
        state = (await self._process.look()).state
        report = BackendReport(disks=self._disks(view.disks), hypervisor=where)
        if not state.as_ours.is_alive:
            return report
        live = await self._live()
        return replace(
            report,
            pid=await self._process.pid(),
            uptime_s=self.uptime_s(),
            accel=(accel := self._accel(live)),
            accel_reason="asked for" if self._spec.accel == accel else None,
            run_state=state.value.lower(),
            nics=_nics(live),
            disk_read_bytes=live.disk_read_bytes,
            disk_written_bytes=live.disk_written_bytes,
        )

    async def screenshot(self) -> bytes:
        """Return what is on its first screen, as a PNG."""
        return await (await self.driver()).screenshot(self.target.id)

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        # Nobody else connects to a socket that only we can open: there is nothing to steal.
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.is_adopted:
            lines = {SERIAL: self._files.socket(SERIAL)}
        else:
            view = await (await self.driver()).view(self.target.id)
            lines = {
                f"serial.{one.slot}": Path(one.path) for one in view.uarts if one.mode == "pipe"
            }
        found: dict[str, Endpoint] = {name: UnixEndpoint(path) for name, path in lines.items()}
        if not self.is_adopted:
            found[CONSOLE] = self._console_endpoint()
        if way_of() != "manage":  # VBoxManage alone cannot keep a session
            from .guest import GuestEndpoint

            found[GUEST_CONTROL] = GuestEndpoint(self.target.place, self.target.id)
        return found

    async def plug(self, names: Sequence[str]) -> None:
        raise Unsupported("VirtualBox has no virtio-serial ports", "plug")

    async def unplug(self) -> None:
        return None

    async def fetch_console(self) -> None:
        return None  # VirtualBox writes it where it is looked for

    async def last_words(self) -> tuple[str, str]:
        log = self._folders.of(self.target) / "Logs" / "VBox.log"
        return tail(log, LAST_LINES), tail(self._files.console_log, LAST_LINES)

    # How

    async def _launch(self, *, stop_on_reboot: bool, frozen: bool) -> None:
        driver, machine = await self.driver(), self.target.id
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.is_adopted:
            turn = "1" if stop_on_reboot else ""
            await driver.prepare(machine, self._uarts(), {TURN_RESET: turn})
        wakes = not self.is_adopted and await self.is_saved()
        await driver.launch(machine, log=self._files.qemu_log, frozen=frozen)
        if wakes:
            await self._free_line()

    async def _free_line(self) -> None:
        """Connect the agent's line of a machine that was saved once more.

        What its guest had said while nobody was there to read, VirtualBox 7.2 waits to be rid of
        for ever, and the guest with it.
        """
        try:
            await self._connect_uart(UartPlan(1, "pipe", str(self._files.socket(SERIAL))))
        except BackendError as err:
            logger.warning("machine %s: its serial line may be stuck: %s", self._spec.name, err)

    async def _erase(self, target: Target) -> None:
        """Remove a machine of ours with its disks, from whatever was made of it."""
        driver = await self.driver()
        with contextlib.suppress(NotFound):
            if (await driver.look(target.id)).is_locked:
                await driver.power_off(target.id, POWER_OFF_S)
            await driver.discard_state(target.id)
            await driver.remove(target.id, media=True)
        self._folders.strike(target)

    async def _saved(self) -> tuple[Saved, ...]:
        try:
            return await (await self.driver()).snapshots(self.target.id)
        except NotFound:
            return ()

    async def _require(self, tag: str | None) -> Saved:
        """Return the newest snapshot of that tag: VirtualBox's own tools allow for several."""
        for one in reversed(await self._saved()):
            if tag in (None, one.tag):
                return one
        raise SnapshotNotFound(self._spec.name, tag or "")

    async def _live(self) -> Live:
        try:
            return await (await self.driver()).live(self.target.id)
        except BackendError as err:
            logger.warning("machine %s: %s", self._spec.name, err)
            return Live()

    def _accel(self, live: Live) -> str | None:
        return ENGINES.get(live.engine or ("Interpreter" if self._spec.accel == "tcg" else ""))

    def _disks(self, shown: Sequence[Disk]) -> tuple[DiskReport, ...]:
        from ..report import DiskReport
        from .disks import is_cd

        # A CD is its own base: it is read where it lies.
        disks = self._spec.disks
        bases = [None if is_cd(disk) else disk.base for disk in disks] + [None] * len(shown)
        return tuple(
            DiskReport(Path(one.path), base, one.virtual_bytes, one.used_bytes)
            for one, base in zip(shown, bases, strict=False)
        )

    def _uarts(self) -> tuple[UartPlan, ...]:
        return (
            UartPlan(0, "file", str(self._files.console_log)),
            UartPlan(1, "pipe", str(self._files.socket(SERIAL))),
        )

    def _console_endpoint(self) -> ConsoleEndpoint:
        if self._console is None:
            self._console = ConsoleEndpoint(
                self._connect_uart,
                self._files.socket("console"),
                self._files.console_log,
                self._console_lock,
            )
        return self._console

    @property
    def _console_lock(self) -> Path:
        return self._files.runtime / "console.held"

    async def _connect_uart(self, plan: UartPlan) -> None:
        await (await self.driver()).connect_uart(self.target.id, plan)

    async def _settle_console(self) -> None:
        """Lead the console back to its log when whoever had it was killed; keep the log small."""
        if self.is_adopted:
            return
        log = self._files.console_log
        is_full = log.exists() and log.stat().st_size > MAX_CONSOLE
        if is_full and not self._console_lock.exists():
            put_aside(log)
        elif not is_abandoned(self._console_lock):
            return
        await self._connect_uart(UartPlan(0, "file", str(log)))
        self._console_lock.unlink(missing_ok=True)

    def _check_spec(self) -> None:
        from .disks import check_disks

        spec = self._spec
        if spec.image is not None or spec.kernel is not None:
            raise ConfigError(
                "VirtualBox boots no kernel by itself",
                hint="boot from a disk or a CD: --disk FILE (vdi, vmdk, vhd, raw, iso)",
            )
        if spec.extra_args:
            raise ConfigError("words for QEMU's command line mean nothing to VirtualBox")
        check_disks(spec.disks)

    def _check_boot_files(self) -> None:
        """Look for the CDs, which are read where they are; all else was copied at creation."""
        from .disks import is_cd

        for disk in self._spec.disks:
            if disk.base is not None and is_cd(disk) and not disk.base.is_file():
                raise BootFailed(
                    f"machine {self._spec.name!r}: {disk.base} is gone",
                    hint="put it back, or create the machine anew",
                )

    def _boot_failed(self, err: BackendError) -> BootFailed:
        if isinstance(err, BootFailed):
            return err
        said = str(err)
        return BootFailed(
            f"machine {self._spec.name!r}: it did not start: {said.splitlines()[-1]}",
            stderr=said,
            hint=err.hint or f"see {self._folders.of(self.target) / 'Logs' / 'VBox.log'}",
        )

    def _forget(self) -> None:
        self._files.run.unlink(missing_ok=True)
        self._files.suspended.unlink(missing_ok=True)
        remove_tree(self._files.runtime)


def _nics(live: Live) -> tuple[Nic, ...] | None:
    from ..report import Nic

    if live.nics is None:
        return None
    return tuple(Nic(nic.kind, f"slot {nic.slot}, {nic.to}") for nic in live.nics)
