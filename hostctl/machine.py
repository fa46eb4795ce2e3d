"""Machine: the object users hold. It joins a back end (power) and a channel (the inside).

Owns policy: who may do what when (lock, guard), what makes an operation repeatable, when the
guest's timeline is cut, how long to be polite. How QEMU does it is the back end's; what travels is
the channel's.

Every changing method holds the machine's lock, so several hostctl processes may call them at once;
commands and files take no lock. Each method may be repeated after a crash of anything, at any
point.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .access import Access
from .backends.interface import (
    CONSOLE,
    Backend,
    Clones,
    MachineSpec,
    Progress,
    Saves,
    Shows,
    check_tag,
)
from .connect import LINES, preload
from .errors import (
    BackendError,
    Busy,
    DeadlineExceeded,
    HostctlError,
    MachineNotFound,
    Unsupported,
)
from .guest import Guest
from .journal import Journal
from .lifecycle import MachineState, guard
from .machine_lock import MachineLock
from .state import FilePulse, Home, MachineFiles, write_atomic

if TYPE_CHECKING:
    from hostctl_channels.interface import Channel
    from hostctl_channels.links.interface import Endpoint

    from .attach import Attachment, Look
    from .backends.report import Snapshot
    from .report import MachineReport
    from .snapshot import Snapshots
    from .stats import MachineStats

__all__ = ["Machine", "MachineReport"]

logger = logging.getLogger(__name__)

REFRESH_S = 5.0
POLL_S = 0.05


class Machine(Guest):
    """A virtual machine. Comes from a Controller, which also closes it."""

    def __init__(
        self, home: Home, spec: MachineSpec, files: MachineFiles, backend: Backend
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self._home = home
        self._files = files
        self._pulse: FilePulse = files.pulse()
        self._backend = backend
        self._access = Access(backend, files)
        self._journal = Journal(home.journal)
        self.lock = MachineLock(backend, files)

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    @property
    def steal(self) -> bool:
        """Whether lines that somebody else holds, as libvirt's consoles do, are taken from them."""
        return self._access.steal

    @steal.setter
    def steal(self, steal: bool) -> None:
        self._access.steal = steal

    @property
    def directory(self) -> Path:
        """Where its spec, disks and logs are."""
        return self._files.directory

    @property
    def console_log(self) -> Path:
        """All that the serial console said since the last start."""
        return self._files.console_log

    async def fetch_console_log(self) -> Path:
        """Make `console_log` current, where the hypervisor keeps it elsewhere; return its path."""
        await self._backend.fetch_console()
        return self._files.console_log

    @property
    def console_socket(self) -> Path:
        """QEMU's own: the serial console, for one client at a time; there while it is alive."""
        return self._files.socket("console")

    def use_channel(self, key: str) -> None:
        """Reach the guest by one channel only, by its key in `connect.LINES`, or the best ("auto").

        Raises:
            ConfigError: there is no such channel.
        """
        self._access.use(key)

    async def console_endpoint(self) -> Endpoint:
        """Return where the serial console is reached, by one client at a time.

        Raises:
            BackendError: there is none, or its hypervisor keeps it to itself.
        """
        endpoints = await self._access.endpoints()
        if CONSOLE not in endpoints:
            raise BackendError(f"machine {self.name!r} has no serial console")
        return endpoints[CONSOLE]

    def uptime_s(self) -> float | None:
        """Return how long its process has run, or None if it has none."""
        return self._backend.uptime_s()

    # Life

    async def state(self) -> MachineState:
        """Return the state. A process found dead is cleaned up, unless someone is at it already."""
        state = await self._backend.state()
        if not state.is_alive and self._files.run.exists():
            with contextlib.suppress(Busy, MachineNotFound):
                async with self.lock.held("clean up", timeout_s=0):
                    state = await self._backend.settle()
        return state

    async def start(
        self, *, wait: bool = True, timeout_s: float = 120, progress: Progress | None = None
    ) -> None:
        """Start the machine; with `wait` return when its agent answers. Fine when it runs already.

        Raises:
            WrongState: it is paused.
            BootFailed: QEMU ended, and the machine is stopped; or the agent did not answer in time,
                and it still runs, for you to look at its console. Last words are quoted.
        """
        async with self.lock.held("start"):
            state = await self._backend.settle()
            guard(self.name, state, "start")
            # It goes on from a moment of before, whose clock has stood still.
            is_old = not state.is_alive and (self._files.unborn.exists() or await self._is_saved())
            if not state.is_alive:
                self._pulse.cut()
                is_booting = wait and not is_old
                if wait:  # at the launch's first pause, while its process comes up
                    asyncio.get_running_loop().call_soon(preload)
                await self._backend.launch(stop_on_reboot=is_booting, progress=progress)
                self._note("started")
        if wait:
            if progress is not None:
                progress("waiting for the agent")
            await self._ready(timeout_s)
            if is_old:
                await self._refresh()
                return
            # Until here a reboot ended QEMU, for it could only be a kernel panic; now it is the
            # guest's right.
            async with self.lock.held("start"):
                if (await self._backend.state()).is_alive:
                    await self._backend.allow_reboot()

    async def stop(self, *, force: bool = False, timeout_s: float = 30) -> None:
        """Stop the machine: by power button, by its agent, after `timeout_s` by force.

        `force` asks nobody. Fine when it is stopped; a crashed one is cleaned up.
        """
        async with self.lock.held("stop", thaw=not force):
            state = await self._backend.settle()
            guard(self.name, state, "stop")
            if state.is_alive and not force and not await self._shut_down(timeout_s):
                logger.warning("machine %s did not stop within %g s: killed", self.name, timeout_s)
            await self._backend.kill()
            self._pulse.cut()
            if state.is_alive:
                self._note("stopped", force=force)
        await self.close()

    async def save(self) -> None:
        """Write the guest's memory to disk and stop; the next start goes on from there.

        Fine when it is stopped.

        Raises:
            Unsupported: its hypervisor cannot do that.
            BackendError: it was not saved, and goes on.
        """
        async with self.lock.held("save"):
            state = await self._backend.settle()
            guard(self.name, state, "save")
            if not isinstance(self._backend, Saves):
                raise _cannot("save memory to disk")
            if state.is_alive:
                await self._backend.save()
                self._pulse.cut()
        await self.close()

    async def pause(self) -> None:
        """Freeze the guest. Fine when it is paused."""
        async with self.lock.held("pause"):
            state = await self._backend.settle()
            guard(self.name, state, "pause")
            # In this order: a frozen guest that nobody calls paused would look hung.
            self._pulse.set_suspended(True)
            try:
                await self._backend.pause()
            except BackendError:
                self._pulse.set_suspended(False)
                raise
            if state is not MachineState.PAUSED:
                self._note("paused")

    async def resume(self) -> None:
        """Let the guest go on, and set its clock. Fine when it runs."""
        async with self.lock.held("resume"):
            state = await self._backend.settle()
            guard(self.name, state, "resume")
            await self._backend.resume()
            self._pulse.set_suspended(False)
            if state is MachineState.PAUSED:
                self._note("resumed")
        if state is MachineState.PAUSED:
            await self._refresh()

    async def _wake(self) -> None:
        """Let a frozen clone of a pool go on, and set its clock. The caller holds our lock.

        Its random pool was fed when it began, and nobody has had that state since: no second time.
        """
        guard(self.name, await self._backend.settle(), "resume")
        self._pulse.set_suspended(False)
        async with asyncio.timeout(REFRESH_S):
            clock = asyncio.ensure_future(self._set_clock())  # its line is opened meanwhile
            try:
                await self._backend.resume()
                await clock
            finally:
                clock.cancel()
                await asyncio.gather(clock, return_exceptions=True)

    async def reset(self, *, wait: bool = True, timeout_s: float = 120) -> None:
        """Press the reset button; with `wait` return when the agent answers again."""
        async with self.lock.held("reset"):
            guard(self.name, await self._backend.settle(), "reset")
            await self._backend.reset()
            self._pulse.cut()
            self._note("reset")
        await self.close()
        if wait:
            await self._ready(timeout_s)

    async def delete(self, *, force: bool = False, undefine: bool = False) -> None:
        """Remove the machine with its disks and logs; `force` kills it first if it is alive.

        One that was adopted is only forgotten, alive or not, and `force` does not change that: it
        is somebody else's. `undefine` removes it from its hypervisor too; its disks stay even then.

        Raises:
            WrongState: it is alive.
        """
        if self._backend.is_adopted and not undefine:
            async with self.lock.held("forget"):
                await self._home.remove(self._files)
                self._note("deleted")
            await self.close()
            return
        async with self.lock.held("delete", thaw=False):
            state = await self._backend.settle()
            if force and state.is_alive:
                await self._backend.kill()
                state = MachineState.STOPPED
            guard(self.name, state, "delete")
            await self._backend.remove()
            await self._home.remove(self._files)
            self._note("deleted")
        await self.close()

    async def wait(
        self, state: MachineState | Literal["ready"] = "ready", timeout_s: float = 120
    ) -> None:
        """Wait until the machine is in `state`, or until its agent answers.

        Raises:
            DeadlineExceeded: it was not, all the time.
            WrongState: "ready" of a machine that does not run.
        """
        if state == "ready":
            guard(self.name, await self.state(), "reach")
            await self._ready(timeout_s)
            return
        try:
            async with asyncio.timeout(timeout_s):
                while await self.state() is not state:  # noqa: ASYNC110 other processes change it
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            now = (await self._backend.state()).value
            raise DeadlineExceeded(
                f"machine {self.name!r} is {now}, not {state.value}, after {timeout_s:g} s"
            ) from None

    async def describe(self) -> MachineReport:
        """Ask the hypervisor and the guest; what does not answer within seconds is None."""
        from .report import MachineReport, guest_view

        state = await self.state()
        guest_nics, capabilities, line, reason = None, None, None, None
        if state is MachineState.RUNNING:
            guest_nics, capabilities = await guest_view(self)
            channel = await self._access.open()
            line, reason = channel.line, channel.reason or None
        return MachineReport.of(
            self.spec,
            state,
            await self._backend.describe(),
            guest_nics=guest_nics,
            channel=(line or LINES[0]).title,
            channel_reason=reason,
            capabilities=capabilities,
            snapshots=await self.list_snapshots(),
            directory=self.directory,
            console_log=self.console_log,
            tags=self.tags,
        )

    async def stats(self) -> MachineStats:
        """Ask what it uses: its process here, its hypervisor, its own Linux."""
        from .stats import GuestUse, HostUse, MachineStats

        report, guest = await self._backend.describe(), None
        if await self.state() is MachineState.RUNNING:
            guest = await GuestUse.ask(self)
        return MachineStats(
            host=None if report.pid is None else HostUse.of(report.pid),
            guest=guest,
            disk_read_bytes=report.disk_read_bytes,
            disk_written_bytes=report.disk_written_bytes,
        )

    async def screenshot(self) -> bytes:
        """Return what is on the screen of the machine, which is alive, as a PNG.

        Raises:
            Unsupported: its hypervisor gives it none.
        """
        if not isinstance(self._backend, Shows):
            raise _cannot("show a screen")
        return await self._backend.screenshot()

    async def clone_into(self, files: MachineFiles, tag: str | None) -> Mapping[str, Any]:
        """Make a linked clone of snapshot `tag`, or of the newest; return its back end's options.

        `files` are the clone's; see Controller.clone.
        """
        async with self.lock.held("clone"):
            await self._backend.settle()
            if not isinstance(self._backend, Clones):
                raise _cannot("clone")
            return await self._backend.clone(files.name, files, tag)

    # Tags

    @property
    def tags(self) -> tuple[str, ...]:
        """The words that `Controller.select` finds it by, as @WORD; sorted."""
        from .tags import read_tags

        return read_tags(self._files)

    async def change_tags(
        self, *, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Add tags and remove others; return all that it has now. Repeatable.

        Raises:
            ConfigError: one is not allowed, by the rule of machine names; nothing was changed.
        """
        from .tags import check_tags, write_tags

        gone = set(check_tags(remove))
        async with self.lock.held("tag", thaw=False):
            return write_tags(self._files, (set(self.tags) | set(check_tags(add))) - gone)

    # Ways in

    async def channels(self) -> tuple[Look, ...]:
        """Try every way into the running guest, and tell what each can, or why it cannot be had.

        May take a minute, for what does not answer is waited for.
        """
        from .attach import look

        guard(self.name, await self.state(), "reach")
        await self.close()  # our own connection may hold a line
        return await look(await self._access.site())

    async def attach(
        self, *, persist: bool = False, dry_run: bool = False, progress: Progress | None = None
    ) -> Attachment:
        """Bring our agent into a running guest by any foothold; fine when it answers already.

        `persist` installs it as a service; `dry_run` only tells what would be done.

        Raises:
            AttachFailed: there is no foothold, or no agent came of it; `detach` undoes the rest.
        """
        from .attach import attach

        async with self.lock.held("attach"):
            guard(self.name, await self._backend.settle(), "reach")
            await self.close()
            plug = self._access.plug if self._backend.capabilities.plug else None
            found = await attach(
                await self._access.site(),
                self._files.attached,
                plug,
                is_kept=persist,
                dry_run=dry_run,
                progress=progress,
            )
        self._access.forget()
        return found

    @property
    def is_attached(self) -> bool:
        """True from the first change that `attach` makes in the guest until `detach`."""
        return self._files.attached.exists()

    async def detach(self) -> Attachment:
        """Take away what `attach` brought: the agent, its service, ports that were added.

        Raises:
            AttachFailed: nothing was attached, or the guest cannot be reached.
        """
        from .attach import detach

        async with self.lock.held("detach"):
            guard(self.name, await self._backend.settle(), "reach")
            await self.close()
            found = await detach(await self._access.site(), self._files.attached)
            await self._backend.unplug()
        self._access.forget()
        return found

    def set_login(self, login: Path) -> None:
        """Keep who logs in at the guest's serial line, from a file as `Login.read` takes it."""
        from hostctl_channels.login import Login

        Login.read(login)
        write_atomic(self._files.login, login.read_bytes())

    # Snapshots

    async def save_snapshot(self, tag: str, *, quiesce: bool = False) -> None:
        """Save RAM and disks of the living machine under `tag`; then it goes on, or stays paused.

        With `quiesce` the guest's file systems are frozen meanwhile, by QEMU's guest agent: the
        disks hold them whole. They are thawed before this returns or raises.

        Raises:
            SnapshotExists: the tag is taken.
            Refused: `quiesce`, and no guest agent answers, or it may not; nothing was saved.
            WrongState: `quiesce` of a machine that is paused.
            OutputWaits: a command's output is not read on; nothing was saved.
        """
        check_tag(tag)
        async with self.lock.held("save a snapshot"):
            state = await self._backend.settle()
            guard(self.name, state, "snapshot")
            epoch = self._pulse.epoch()
            if quiesce:
                guard(self.name, state, "reach")
            save = self._snapshots.save_quiesced if quiesce else self._snapshots.save
            await save(tag)
            self._note("snapshot-saved", tag=tag)
        if self._pulse.epoch() != epoch:  # it could only be saved by a restart of its process
            await self.close()

    async def list_snapshots(self) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first."""
        return await self._backend.snapshots()

    async def restore_snapshot(self, tag: str) -> None:
        """Bring back the moment `tag`, starting the machine if it is stopped.

        It is paused afterwards if it was when saved. Requests under way in the guest fail with
        ChannelReset. The guest's clock is set and its random pool fed before this returns, if its
        agent answers.

        Raises:
            SnapshotNotFound: no such tag; nothing was done.
            BackendError: the load failed; what ran goes on as before, what was stopped is stopped.
        """
        async with self.lock.held("restore a snapshot"):
            state = await self._backend.settle()
            guard(self.name, state, "restore")
            await self._access.close()  # a port that is not held can be marked
            snapshot = await self._snapshots.restore(tag, state)
            self._note("restored", tag=tag, paused=snapshot.paused)
        await self.close()
        if not snapshot.paused:
            await self._refresh()

    async def delete_snapshot(self, tag: str) -> None:
        """Drop snapshot `tag`, whether the machine runs or not."""
        async with self.lock.held("delete a snapshot"):
            await self._backend.settle()
            await self._snapshots.delete(tag)
            self._note("snapshot-deleted", tag=tag)

    async def close(self) -> None:
        """Give back the ports. The machine goes on, and this object may be used again."""
        await self._access.close()
        await self._backend.close()

    # How

    @property
    def _snapshots(self) -> Snapshots:
        from .snapshot import Snapshots  # here, as most of what few commands need

        return Snapshots(self._backend, self._files)

    def _note(self, kind: str, **detail: object) -> None:
        self._journal.note(self.name, kind, **detail)

    async def _reach(self) -> Channel:
        """Return the channel to a guest that is awake; each request connects by itself."""
        # A connection that was in order a moment ago says more than its process' existence.
        if (channel := self._access.warm) is not None:
            return channel
        guard(self.name, await self._backend.state(), "reach")
        await self.lock.recover()
        return await self._access.open()

    async def _ready(self, timeout_s: float) -> None:
        """Wait until the agent answers. Raises BootFailed."""
        from .power import wait_ready

        await wait_ready(self._backend, self._files, self._connect, timeout_s)

    async def _shut_down(self, timeout_s: float) -> bool:
        from .power import shut_down

        return await shut_down(self._backend, self._files, self.shell, timeout_s)

    async def _connect(self, timeout_s: float) -> None:
        await (await self._access.open()).connect(timeout_s)

    async def _is_saved(self) -> bool:
        return isinstance(self._backend, Saves) and await self._backend.is_saved()

    async def _refresh(self) -> None:
        """Set the guest's clock and feed its random pool, which a restore has made old and shared.

        The best that can be done: a guest whose agent never answered is not waited for.
        """
        if not self._files.answered.exists():
            return
        try:
            async with asyncio.timeout(REFRESH_S):
                await self._set_clock()
                await (await self._reach()).feed_entropy(os.urandom(64))
        except (HostctlError, TimeoutError) as err:
            logger.warning("machine %s: clock and entropy not refreshed: %s", self.name, err)

    async def _set_clock(self) -> None:
        channel = await self._reach()
        await channel.connect(REFRESH_S)  # may take a while, and the time is to be that after it
        await channel.set_clock(time.time())


def __getattr__(name: str) -> object:
    if name == "MachineReport":  # loaded on use, see backends/interface.py
        from .report import MachineReport

        return MachineReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _cannot(what: str) -> Unsupported:
    return Unsupported(f"this machine's hypervisor cannot {what}", what)
