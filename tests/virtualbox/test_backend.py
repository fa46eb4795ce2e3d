"""The back end on the real VirtualBox, beyond what every back end keeps (tests/contract)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.backends.virtualbox.api import ApiDriver
from hostctl.backends.virtualbox.faults import BridgeDied
from hostctl.controller import Controller
from hostctl.errors import BackendError, BootFailed, SnapshotNotFound
from hostctl.lifecycle import MachineState

from ..bootsector import COUNTER, boot_disk
from .boots import PATIENCE_S, backend_of, becomes, create, hears, pid_of, resumes, said, until
from .laboratory import BOOT_MARKS, Lab

pytestmark = [*BOOT_MARKS, pytest.mark.timeout(180), pytest.mark.usefixtures("alone")]


class TestDeath:
    async def test_a_killed_vm_process_is_a_crash_and_starts_again(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        os.kill(pid_of(place, machine), signal.SIGKILL)
        await becomes(machine, MachineState.CRASHED)
        await machine.start(wait=False)
        await hears(machine)

    async def test_a_killed_vboxsvc_takes_its_machines_and_hostctl_goes_on(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        await hears(machine)
        (service,) = place.pids("VBoxSVC")
        os.kill(service, signal.SIGKILL)
        # Its clients notice after 14 s, its machines too; it never tells that they crashed.
        with pytest.raises(BridgeDied, match="VBoxSVC has died"):
            await backend_of(machine).pause()
        await machine.wait(MachineState.STOPPED, PATIENCE_S)
        await until(lambda: not place.pids("VBoxHeadless", backend_of(machine).target.id))
        assert await machine.list_snapshots() == ()
        await machine.start(wait=False)
        await hears(machine)

    async def test_a_killed_bridge_fails_its_request_and_no_other(
        self, controller: Controller
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        driver = await backend_of(machine).driver()
        assert isinstance(driver, ApiDriver)
        watching = asyncio.create_task(_watch(driver, backend_of(machine).target.id))
        await asyncio.sleep(0.2)
        pid = driver.bridge.pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
        with pytest.raises(BridgeDied, match="signal 9"):
            await watching
        assert await machine.state() is MachineState.RUNNING
        assert driver.bridge.pid != pid
        await hears(machine)

    async def test_a_bridge_killed_in_the_middle_of_a_start_loses_nothing(
        self, controller: Controller
    ) -> None:
        machine = await create(controller)
        driver = await backend_of(machine).driver()
        assert isinstance(driver, ApiDriver)
        starting = asyncio.create_task(machine.start(wait=False))
        await asyncio.sleep(0.15)
        assert driver.bridge.pid is not None
        os.killpg(driver.bridge.pid, signal.SIGKILL)
        with pytest.raises(BootFailed):
            await starting
        assert await machine.state() is MachineState.STOPPED
        await machine.start(wait=False)
        await hears(machine)

    async def test_what_a_killed_create_left_goes_with_the_next(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller, "lost")
        files = controller.home.files("lost")
        files.spec.unlink()  # as if its maker had been killed before the folder was in place
        files.directory.rename(controller.home.machines / ".new-00000000")
        await machine.close()
        controller._machines.clear()
        await create(controller)
        assert place.manage("list", "vms").count("hostctl-") == 1
        assert len(list((controller.home.state / "virtualbox").iterdir())) == 1


class TestManyTimes:
    async def test_ten_restores_in_a_row(self, controller: Controller) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        await hears(machine, 3)
        await machine.pause()
        moment = said(machine)[-1]
        await machine.save_snapshot("base")
        for _ in range(10):
            await machine.restore_snapshot("base")
            assert await machine.state() is MachineState.PAUSED
            assert ord(await resumes(machine)) - ord(moment) in (0, 1)

    async def test_two_machines_at_once_do_not_know_each_other(
        self, controller: Controller
    ) -> None:
        pair = [await create(controller, name) for name in ("one", "two")]
        await asyncio.gather(*(machine.start(wait=False) for machine in pair))
        await asyncio.gather(*(hears(machine) for machine in pair))
        await pair[0].pause()
        await asyncio.gather(*(machine.save_snapshot("a") for machine in pair))
        assert [await one.state() for one in pair] == [MachineState.PAUSED, MachineState.RUNNING]
        await asyncio.gather(*(machine.stop(force=True) for machine in pair))
        assert [await one.state() for one in pair] == [MachineState.STOPPED] * 2


class TestMemory:
    async def test_a_saved_machine_goes_on_where_it_was(self, controller: Controller) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        await hears(machine, 5)
        await machine.save()
        last = said(machine)[-1]
        assert await machine.state() is MachineState.STOPPED
        await machine.save()  # fine when it is stopped
        await machine.start(wait=False)
        await until(lambda: said(machine) != "")  # a start has a log of its own
        assert (ord(said(machine)[0]) - ord(last)) in (0, 1)

    async def test_a_clone_shares_its_disk_and_may_go_on_from_its_memory(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller)
        with pytest.raises(SnapshotNotFound):
            await controller.clone_snapshot("web", "copy")
        await machine.start(wait=False)
        await hears(machine, 5)
        await machine.save_snapshot("base")
        moment = said(machine)[-1]
        copy = await controller.clone_snapshot("web", "copy", snapshot="base")
        assert controller.machine("copy") is copy
        view = await (await backend_of(copy).driver()).view(backend_of(copy).target.id)
        assert view.nics == ()
        assert [Path(disk.base or "").name for disk in view.disks] == ["disk0.vdi"]
        await copy.start(wait=False)
        await asyncio.gather(hears(machine), hears(copy))
        assert -1 <= ord(said(copy)[0]) - ord(moment) <= 1
        with pytest.raises(BackendError):
            await machine.delete_snapshot("base")
        await copy.delete(force=True)
        await machine.delete_snapshot("base")


class TestDisks:
    @pytest.mark.parametrize("format", ["vdi", "vmdk", "vhd", "raw"])
    async def test_bases_of_every_format_boot_and_stay_untouched(
        self, place: Lab, controller: Controller, format: str
    ) -> None:
        base = _converted(place, controller.home.state, format)
        before = hashlib.sha256(base.read_bytes()).digest()
        spec = DiskSpec(base, size_bytes=None if format == "vmdk" else 8 << 20)
        for name in ("one", "two"):
            shape = MachineSpec(name, disks=(spec,), memory_mib=32, accel="tcg")
            machine = await controller.create(shape, backend="virtualbox")
            await machine.start(wait=False)
            await hears(machine)
        report = await backend_of(controller.machine("two")).describe()
        assert (report.disk_read_bytes or 0) >= 512
        assert report.disk_written_bytes == 0
        assert report.disks[0].base == base
        assert report.disks[0].virtual_bytes == (2 << 20 if format == "vmdk" else 8 << 20)
        assert hashlib.sha256(base.read_bytes()).digest() == before
        assert str(base) not in place.manage("list", "hdds")

    async def test_a_machine_may_have_many_disks_and_a_cd(
        self, place: Lab, controller: Controller
    ) -> None:
        more = (DiskSpec(place.guest_iso), *(DiskSpec(size_bytes=size << 20) for size in (1, 2, 3)))
        machine = await create(controller, "web", COUNTER, *more)
        disks = (await machine.describe()).disks
        assert [disk.path for disk in disks].count(place.guest_iso) == 1
        sizes = [disk.virtual_bytes >> 20 for disk in disks if disk.path != place.guest_iso]
        assert sorted(sizes) == [1, 2, 2, 3]


class TestOthers:
    async def test_an_adopted_machine_is_only_moved_and_then_forgotten(
        self, place: Lab, controller: Controller
    ) -> None:
        place.manage("createvm", "--name", "theirs", "--ostype", "Linux26_64", "--register")
        engine = "--vm-execution-engine=interpreter"
        place.manage("modifyvm", "theirs", "--memory", "32", engine, "--nic1", "null")
        try:
            before = place.manage("showvminfo", "theirs", "--machinereadable")
            machine = await controller.adopt("theirs", name="mine", backend="virtualbox")
            await machine.start(wait=False)
            report = await backend_of(machine).describe()
            assert report.nics is not None
            assert [nic.kind for nic in report.nics] == ["I82540EM"]
            assert report.pid == pid_of(place, machine)
            await machine.pause()
            await machine.stop(force=True)
            await machine.delete(force=True)
            after = place.manage("showvminfo", "theirs", "--machinereadable")
            assert _settled(after) == _settled(before)
        finally:
            place.manage("unregistervm", "theirs", "--delete")

    async def test_a_lock_that_somebody_holds_for_a_moment_is_waited_for(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller)
        driver = await backend_of(machine).driver()
        assert isinstance(driver, ApiDriver)
        id = backend_of(machine).target.id
        holding = asyncio.create_task(_hold(place, id, 1.5))
        await asyncio.sleep(0.7)
        began = time.monotonic()
        await driver.set_extra(id, "hostctl/test", "x")
        await holding
        assert time.monotonic() - began < 15


async def _watch(driver: ApiDriver, id: str) -> None:
    async for _ in driver.changes(id):
        pass


def _converted(lab: Lab, folder: Path, format: str) -> Path:
    raw = boot_disk(folder).base
    assert raw is not None
    if format == "raw":
        return raw
    path = folder / f"base.{format}"
    lab.manage("convertfromraw", str(raw), str(path), f"--format={format}")
    return path


def _settled(info: str) -> list[str]:
    """Leave out what VirtualBox changes by itself."""
    moving = ("VMState", "GuestProperty", "videomode", "LogFldr")
    return [line for line in info.splitlines() if not line.startswith(moving)]


async def _hold(lab: Lab, id: str, duration_s: float) -> None:
    """Hold a machine's write lock for a while, from another process."""
    script = (
        "import sys, time\n"
        "from vboxapi import VirtualBoxManager\n"
        "m = VirtualBoxManager(None, None)\n"
        "s = m.getSessionObject(m.getVirtualBox())\n"
        f"m.getVirtualBox().findMachine({id!r}).lockMachine(s, m.constants.LockType_Write)\n"
        f"time.sleep({duration_s})\n"
        "s.unlockMachine()\n"
        "m.deinit()\n"
    )
    await asyncio.to_thread(lab.run, lab.place.python, "-c", script)
