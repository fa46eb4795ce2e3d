"""Backend over a private QEMU process: how a machine starts, freezes, saves and dies.

run.json is the record of one run. It is written *before* QEMU is spawned, with an id that is also
in QEMU's arguments, and completed after; so there is no instant at which a killed hostctl loses a
process. How a run ended is told by QEMU's pidfile: it removes it when it ends in order (guest
power-off, quit, SIGTERM) and cannot when it is killed or aborts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import GUEST_AGENT, PORTS, SERIAL, suffix

from ... import procs
from ...errors import (
    BackendError,
    BootFailed,
    DeadlineExceeded,
    MonitorError,
    SnapshotExists,
    SnapshotNotFound,
    Unsupported,
)
from ...lifecycle import MachineState
from ...state import MachineFiles, cut_log, put_aside, remove_tree, tail, write_json
from ..interface import CONSOLE, Capabilities, MachineSpec, Progress
from ..process import ProcessId, find_by_argument
from ..run import read_run
from .brief import brief, tell
from .moment import Moment

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from hostctl_channels.links.interface import Endpoint

    from ..report import BackendReport, Snapshot
    from .monitor import Monitor

# What only a start, a snapshot or a look inside needs is imported there: qemu.qmp alone is 80 ms of
# CPU, for which `hostctl exec` has no use.

__all__ = ["QemuBackend"]

logger = logging.getLogger(__name__)

# Last, so that ours keep their numbers; where nothing listens, it costs the guest a device node.
NAMES = (*PORTS, GUEST_AGENT)

GREETING_S = 20.0  # QEMU's own start takes 0.05-0.2 s; a loaded host may need seconds
QUIT_S = 3.0  # QEMU's answer to quit: it flushes its disks
MAX_CONSOLE = (
    64 << 20
)  # the guest writes it, and must not fill the host's disk; looked at in `settle`
STATE_S = 30.0  # for some hundred kilobytes
TERM_S = 0.5  # what did not heed `quit` hangs, and will hardly heed SIGTERM
LAST_LINES = 60  # a panic and its trace


@dataclass(frozen=True, slots=True)
class Run:
    """The record of one run, as run.json holds it."""

    run_id: str
    accel: str
    accel_reason: str
    pid: int | None = None
    start_ticks: int | None = None
    boot_id: str | None = None
    has_crashed: bool = False

    def process(self, name: str) -> ProcessId | None:
        """Return the run's process while it lives."""
        if self.has_crashed:
            return None
        if self.pid is None:
            from .argv import run_name

            return find_by_argument(run_name(name, self.run_id))
        assert self.start_ticks is not None
        assert self.boot_id is not None
        process = ProcessId(self.pid, self.start_ticks, self.boot_id)
        return process if process.is_alive else None

    def of(self, process: ProcessId) -> Run:
        """Return the record with its process filled in."""
        return replace(
            self, pid=process.pid, start_ticks=process.start_ticks, boot_id=process.boot_id
        )


class QemuBackend:
    """One machine on a QEMU process of its own."""

    capabilities = Capabilities()
    is_adopted = False

    def __init__(
        self, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any] | None = None
    ) -> None:
        self._spec = spec
        self._files = files
        self._moment = Moment.from_json(options)

    async def prepare(self) -> None:
        from .disks import copy_disks, create_disks

        if self._moment.prepared is not None:
            copy_disks(self._moment.prepared, self._files)
            self._files.unborn.touch(mode=0o600)
        else:
            await create_disks(self._files, self._spec.disks)

    async def state(self) -> MachineState:
        run = self._run()
        if run is None:
            return MachineState.STOPPED
        if run.process(self._spec.name) is not None:
            suspended = self._files.suspended.exists()
            return MachineState.PAUSED if suspended else MachineState.RUNNING
        return self._ending(run)

    def uptime_s(self) -> float | None:
        process = self._process()
        return None if process is None else process.uptime_s

    async def settle(self) -> MachineState:
        self._files.sweep()
        cut_log(self._files.console_log, MAX_CONSOLE)
        run = self._run()
        if run is None:
            self._forget()
            return MachineState.STOPPED
        if run.has_crashed:
            return MachineState.CRASHED
        if (process := run.process(self._spec.name)) is not None:
            if run.pid is None:
                logger.info("adopting process %d of machine %s", process.pid, self._spec.name)
                self._record(run.of(process))
            return await self.state()
        ending = self._ending(run)
        if ending is MachineState.CRASHED:
            self._clear_runtime()
            with contextlib.suppress(OSError):  # of a full disk; what crashed can still be deleted
                self._record(replace(run, has_crashed=True))
        else:
            self._forget()
        return ending

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        from ..accel import choose
        from .argv import Launch, argv

        self._check_boot_files()
        is_birth = self._files.unborn.exists()
        choice = await choose(self._spec, self._files, progress)
        self._forget()
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        for log in (self._files.console_log, self._files.qemu_log):
            put_aside(log)
        launch = Launch(
            run_id=os.urandom(8).hex(),
            accel=choice.accel,
            ports=NAMES,
            kernel=self._spec.kernel,
            initrd=self._spec.initrd,
            append=self._spec.append,
            stop_on_reboot=stop_on_reboot,
            frozen=frozen or is_birth,
            ram=self._moment.ram(is_birth=is_birth),
            is_incoming=is_birth,
        )
        run = Run(launch.run_id, choice.accel, choice.reason)
        self._record(run)
        if progress is not None:
            progress(f"starting qemu ({choice.accel})")
        try:
            pid = procs.spawn_detached(argv(self._spec, self._files, launch), self._files.qemu_log)
            await self._greet(run, pid)
            if is_birth:
                await self._be_born(frozen=frozen)
        except BaseException:
            await self.kill()
            raise

    async def _be_born(self, *, frozen: bool) -> None:
        """Take over the moment of the template, whose RAM we have; a later start boots."""
        from .template import load_state

        assert self._moment.state is not None
        async with brief(self._files.socket("qmp")) as qmp:
            await load_state(qmp, self._moment.state, self._files.socket("state"), STATE_S)
            if not frozen:
                await qmp.execute("cont")
        self._files.unborn.unlink()

    async def save_moment(self, path: Path) -> None:
        """Freeze the guest for good, and write its devices to `path`; its RAM must be a file."""
        from .template import save_state

        async with self._monitor() as qmp:
            await save_state(qmp, self._files, path, STATE_S)

    async def allow_reboot(self) -> None:
        async with self._monitor() as qmp:
            await qmp.execute("set-action", {"reboot": "reset"})

    async def power_down(self) -> None:
        async with self._monitor() as qmp:
            # A frozen guest would never see the button.
            await qmp.execute("cont")
            self._files.suspended.unlink(missing_ok=True)
            await qmp.execute("system_powerdown")

    async def wait_gone(self, timeout_s: float) -> bool:
        process = self._process()
        return process is None or await process.wait_gone(timeout_s)

    async def kill(self) -> None:
        process = self._process()
        if process is not None and not await self._quit(process):
            await process.end(TERM_S)
            if process.is_alive:  # its record is kept, or nobody would ever find it again
                raise DeadlineExceeded(f"qemu process {process.pid} does not end, even by SIGKILL")
        self._forget()

    async def pause(self) -> None:
        async with self._monitor() as qmp:
            await qmp.execute("stop")

    async def resume(self) -> None:
        await tell(self._files.socket("qmp"), "cont")
        self._files.held.unlink(missing_ok=True)

    async def reset(self) -> None:
        async with self._monitor() as qmp:
            await qmp.execute("set-action", {"reboot": "reset"})
            await qmp.execute("system_reset")

    async def snapshots(self) -> tuple[Snapshot, ...]:
        from .snapshot import list_snapshots

        return await list_snapshots(self._files)

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        from .snapshot import save

        if tag in await self._tags():
            raise SnapshotExists(self._spec.name, tag)
        async with self._monitor() as qmp:
            await qmp.dismiss_jobs()
            await save(qmp, self._files, len(self._spec.disks), tag, timeout_s)

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        from .snapshot import load

        await self._require(tag)
        self._files.held.touch(mode=0o600)
        async with self._monitor() as qmp:
            await qmp.dismiss_jobs()
            await load(qmp, len(self._spec.disks), tag, timeout_s)

    async def copy_moment(self, tag: str, files: MachineFiles, timeout_s: float) -> None:
        """Make the disks and the RAM snapshots of snapshot `tag` those of a machine that is down.

        Our own go on being used meanwhile; the caller holds our lock, so that no snapshot is.
        """
        from .snapshot import copy_moment

        await copy_moment(self._files, len(self._spec.disks), tag, files, timeout_s)

    async def load_ram(self, tag: str, timeout_s: float) -> None:
        """Load what snapshot `tag` holds of RAM and devices; the disks are as it left them."""
        from .snapshot import load

        async with self._monitor() as qmp:
            await load(qmp, 0, tag, timeout_s)

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        from .snapshot import delete, delete_at_rest

        await self._require(tag)
        disks = len(self._spec.disks)
        if self._process() is None:
            await delete_at_rest(self._files, disks, tag)
            return
        async with self._monitor() as qmp:
            await qmp.dismiss_jobs()
            await delete(qmp, self._files, disks, tag, timeout_s)

    async def describe(self) -> BackendReport:
        from ..inventory import network_devices
        from ..report import BackendReport
        from .disks import describe_disks
        from .monitor import monitor

        disks = await describe_disks(self._files, self._spec.disks)
        run = self._run()
        process = None if run is None else run.process(self._spec.name)
        if run is None or process is None:
            return BackendReport(disks=disks)
        report = BackendReport(
            process.pid, process.uptime_s, run.accel, run.accel_reason, disks=disks
        )
        try:
            async with monitor(self._files.socket("query")) as qmp:
                run_state = (await qmp.execute("query-status"))["status"]
                counts = [disk["stats"] for disk in await qmp.execute("query-blockstats")]
                return replace(
                    report,
                    run_state=run_state,
                    nics=await network_devices(qmp),
                    disk_read_bytes=sum(count["rd_bytes"] for count in counts),
                    disk_written_bytes=sum(count["wr_bytes"] for count in counts),
                )
        except MonitorError as err:
            logger.warning("machine %s: %s", self._spec.name, err)
            return report

    async def screenshot(self) -> bytes:
        from .monitor import monitor

        path = self._files.runtime / "screen.png"
        try:
            async with monitor(self._files.socket("query")) as qmp:
                await qmp.execute("screendump", {"filename": str(path), "format": "png"})
            return path.read_bytes()
        except MonitorError as err:
            if "no console" not in err.reason:
                raise
            message = f"machine {self._spec.name!r} has no screen"
            hint = "make it with --qemu-arg=-device --qemu-arg=VGA"
            raise Unsupported(message, "show a screen", hint=hint) from err
        finally:
            path.unlink(missing_ok=True)

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        # Nobody else connects to a socket that only we can open: there is nothing to steal.
        names = (*NAMES, SERIAL)
        ports = {name: UnixEndpoint(self._files.socket(suffix(name))) for name in names}
        return {**ports, CONSOLE: UnixEndpoint(self._files.socket("console"))}

    async def plug(self, names: Sequence[str]) -> None:
        raise BackendError(f"machine {self._spec.name!r} has all its ports from the start")

    async def unplug(self) -> None:
        return None

    async def fetch_console(self) -> None:
        return None

    async def remove(self) -> None:
        return None  # all that is left is files of ours

    async def close(self) -> None:
        return None

    async def last_words(self) -> tuple[str, str]:
        return self._last_words()

    def _last_words(self) -> tuple[str, str]:
        return tail(self._files.qemu_log, LAST_LINES), tail(self._files.console_log, LAST_LINES)

    async def _greet(self, run: Run, pid: int) -> None:
        """Write down who the process is, and wait for its greeting: its arguments were good."""
        process = ProcessId.of(pid)
        if process is None:
            raise self._boot_failed("qemu ended at once")
        self._record(run.of(process))
        try:
            path, is_starting = self._files.socket("qmp"), lambda: process.is_alive
            async with brief(path, timeout_s=GREETING_S, is_starting=is_starting):
                pass
        except MonitorError as err:
            raise self._boot_failed("qemu did not start", err) from err

    def _boot_failed(self, message: str, err: BackendError | None = None) -> BootFailed:
        stderr, console = self._last_words()
        reason = stderr.splitlines()[-1] if stderr else str(err or "it said nothing")
        return BootFailed(
            f"machine {self._spec.name!r}: {message}: {reason}",
            stderr=stderr,
            console=console,
            hint=f"see {self._files.qemu_log}",
        )

    async def _quit(self, process: ProcessId) -> bool:
        try:
            await tell(self._files.socket("qmp"), "quit", QUIT_S)
        except MonitorError as err:
            logger.debug("quit: %s", err)
            if err.command == "connect":
                return False
        return await process.wait_gone(QUIT_S)

    def _monitor(self) -> AbstractAsyncContextManager[Monitor]:
        from .monitor import monitor

        process = self._process()
        return monitor(
            self._files.socket("qmp"), is_alive=lambda: process is not None and process.is_alive
        )

    def _run(self) -> Run | None:
        return read_run(self._files.run, Run)

    def _process(self) -> ProcessId | None:
        run = self._run()
        return None if run is None else run.process(self._spec.name)

    def _ending(self, run: Run) -> MachineState:
        """Tell how a run whose process is gone has ended."""
        # No pid and no process: hostctl was killed before it could spawn; nothing ever ran.
        started = run.pid is not None
        is_unclean = run.has_crashed or (started and self._files.pid.exists())
        return MachineState.CRASHED if is_unclean else MachineState.STOPPED

    def _record(self, run: Run) -> None:
        write_json(self._files.run, asdict(run))

    def _forget(self) -> None:
        """Remove all traces of a run that has ended."""
        self._files.run.unlink(missing_ok=True)
        self._files.pid.unlink(missing_ok=True)
        self._files.suspended.unlink(missing_ok=True)
        self._clear_runtime()

    def _clear_runtime(self) -> None:
        remove_tree(self._files.runtime)

    def _check_boot_files(self) -> None:
        for path in (self._spec.kernel, self._spec.initrd, *(d.base for d in self._spec.disks)):
            if path is not None and not path.is_file():
                raise BootFailed(
                    f"machine {self._spec.name!r}: {path} is gone",
                    hint="put it back, or create the machine anew",
                )

    async def _tags(self) -> frozenset[str]:
        return frozenset(snapshot.tag for snapshot in await self.snapshots())

    async def _require(self, tag: str) -> None:
        if tag not in await self._tags():
            raise SnapshotNotFound(self._spec.name, tag)
