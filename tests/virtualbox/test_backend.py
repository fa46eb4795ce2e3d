"""The back end on the real VirtualBox, beyond what every back end keeps (tests/contract).

Each test has machines of its own: boot sectors, up in half a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.backends.virtualbox import bridge
from hostctl.backends.virtualbox.api import ApiDriver
from hostctl.backends.virtualbox.backend import VirtualBoxBackend
from hostctl.backends.virtualbox.driver import Driver
from hostctl.backends.virtualbox.faults import BridgeDied, NotFound, VirtualBoxError
from hostctl.backends.virtualbox.manage import ManageDriver
from hostctl.backends.virtualbox.seen import View, VmState
from hostctl.controller import Controller
from hostctl.errors import BackendError, BootFailed, ChannelClosed, PortHeld, SnapshotNotFound
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home, previous
from hostctl_channels.links.interface import Link

from ..bootsector import COUNTER, ECHO, FIRST, LAST, boot_disk
from ..unit.hostctl.virtualbox.facts import Facts
from .laboratory import MARKS, Lab

pytestmark = [*MARKS, pytest.mark.timeout(180), pytest.mark.usefixtures("alone")]

PATIENCE_S = 20
BRIDGE = Path(bridge.__file__).parent


@pytest.fixture
def place(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Lead hostctl to the lab."""
    for name, value in lab.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOSTCTL_VBOX_API", "api")
    return lab


@pytest.fixture
async def controller(place: Lab) -> AsyncIterator[Controller]:
    """Yield a controller of an empty home; all machines are gone in the end."""
    with tempfile.TemporaryDirectory(prefix="hx-") as root:
        async with Controller(Home(Path(root) / "s", Path(root) / "r")) as controller:
            yield controller
            for machine in controller.machines():
                await machine.delete(force=True)
        assert "hostctl-" not in place.manage("list", "vms")


async def create(
    controller: Controller, name: str = "web", code: bytes = COUNTER, *more: DiskSpec
) -> Machine:
    """Make a machine that boots `code`."""
    disks = (boot_disk(controller.home.state, code), *more)
    return await controller.create(
        MachineSpec(name, disks=disks, memory_mib=32, accel="tcg"), backend="virtualbox"
    )


def backend_of(machine: Machine) -> VirtualBoxBackend:
    backend = machine._backend
    assert isinstance(backend, VirtualBoxBackend)
    return backend


def said(machine: Machine) -> str:
    log = machine.console_log
    text = log.read_bytes() if log.exists() else b""
    return "".join(chr(byte) for byte in text if FIRST <= byte <= LAST)


async def hears(machine: Machine, more: int = 2) -> str:
    """Wait for `more` new letters, and return them."""
    begin = len(said(machine))
    await until(lambda: len(said(machine)) >= begin + more)
    return said(machine)[begin:]


async def resumes(machine: Machine) -> str:
    """Let it go on, and return the first letter that it says from then on."""
    begin = len(said(machine))
    await machine.resume()
    await until(lambda: len(said(machine)) > begin)
    return said(machine)[begin]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody tells us."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 files and other processes tell nobody
            await asyncio.sleep(0.02)


async def becomes(machine: Machine, state: MachineState) -> None:
    await machine.wait(state, PATIENCE_S)


def pid_of(lab: Lab, machine: Machine) -> int:
    (pid,) = lab.pids("VBoxHeadless", backend_of(machine).target.id)
    return pid


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


class TestEvents:
    @pytest.mark.parametrize("kind", [ApiDriver, ManageDriver])
    async def test_every_state_is_told_as_it_comes(
        self, place: Lab, controller: Controller, kind: type[ApiDriver | ManageDriver]
    ) -> None:
        machine, driver = await create(controller), kind(place.place)
        states: list[VmState] = []
        hearing = asyncio.create_task(_collect(driver, backend_of(machine).target.id, states))
        await until(lambda: bool(states))  # it looks, from now on
        for move, state in (
            (partial(machine.start, wait=False), VmState.RUNNING),
            (machine.pause, VmState.PAUSED),
            (partial(machine.stop, force=True), VmState.POWERED_OFF),
        ):
            await move()
            await until(lambda state=state: hearing.done() or state in states[1:])  # type: ignore[misc]
            assert not hearing.done(), hearing.exception()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await driver.close()
        assert states[0] is VmState.POWERED_OFF


class TestTypeLibrary:
    def test_the_recorded_facts_are_those_of_the_live_one(self, place: Lab) -> None:
        facts = Facts.of("7.2")
        script = (
            "import json, sys, types\n"
            f"package = types.ModuleType('bridge'); package.__path__ = [{str(BRIDGE)!r}]\n"
            "sys.modules['bridge'] = package\n"
            "from bridge import typelib\n"
            "from vboxapi import VirtualBoxManager\n"
            "manager = VirtualBoxManager(None, None); manager.getVirtualBox()\n"
            "library, (enums, methods) = typelib.of(manager), json.loads(sys.argv[1])\n"
            "print(json.dumps([{name: library.constants(name) for name in enums},\n"
            "    {name: library.inputs(*name.split('.')) for name in methods}]))\n"
            "manager.deinit()\n"
        )
        names = json.dumps([list(facts.enums), list(facts.inputs)])
        told = place.run(place.place.python, "-c", script, names).splitlines()[-1]
        assert json.loads(told) == [facts.enums, facts.inputs]


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


class TestConsole:
    async def test_it_can_be_talked_to_and_is_logged_all_the_time(
        self, controller: Controller
    ) -> None:
        machine = await create(controller, "web", ECHO)
        await machine.start(wait=False)
        endpoint = await machine.console_endpoint()
        await _logged(machine, b"!")
        link = await endpoint.open()
        with pytest.raises(PortHeld):
            await endpoint.open()
        for letter in b"hello":  # one by one: a UART without FIFO loses what it has no room for
            await link.send(bytes([letter]))
            assert await _next(link) == bytes([letter])
        link.close()
        await _logged(machine, b"hello")
        await until(lambda: not (machine.console_socket.parent / "console.held").exists())
        again = await endpoint.open()
        again.close()

    async def test_a_console_that_was_left_by_sigkill_is_logged_again(
        self, controller: Controller
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        backend = backend_of(machine)
        await hears(machine)
        link = await (await machine.console_endpoint()).open()
        _let_go(backend)
        await machine.pause()  # whatever locks the machine finds it
        await machine.resume()
        await hears(machine)
        link.close()

    async def test_a_stopped_machine_has_none(self, controller: Controller) -> None:
        machine = await create(controller)
        with pytest.raises(ChannelClosed):
            await (await machine.console_endpoint()).open()

    async def test_a_log_that_grows_too_long_begins_anew(
        self, controller: Controller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        await hears(machine, 5)
        monkeypatch.setattr("hostctl.backends.virtualbox.backend.MAX_CONSOLE", 3)
        await machine.pause()
        full = previous(machine.console_log).read_bytes()
        assert b"01234" in full
        assert not machine.console_log.read_bytes().startswith(full)
        await machine.resume()
        await hears(machine)

    async def test_the_screen_is_a_png(self, controller: Controller) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        assert (await machine.screenshot()).startswith(b"\x89PNG")


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


class TestOracle:
    async def test_api_and_vboxmanage_say_the_same_at_every_step(
        self, place: Lab, controller: Controller
    ) -> None:
        machine = await create(controller, "web", COUNTER, DiskSpec(place.guest_iso))
        id = backend_of(machine).target.id
        drivers = (ApiDriver(place.place), ManageDriver(place.place))
        try:
            await _agree(drivers, id)
            await machine.start(wait=False)
            await _agree(drivers, id)
            await drivers[1].pause(id)
            await _agree(drivers, id)
            await drivers[1].save_snapshot(id, "by the tool", "a note\nof two lines", 60)
            await drivers[0].save_snapshot(id, "by the API", 'with "quotes" \\ too', 60)
            await _agree(drivers, id)
            await drivers[1].resume(id)
            await drivers[0].power_off(id, 20)
            await _agree(drivers, id)
            first, second = await drivers[0].snapshots(id)
            await drivers[1].restore_snapshot(id, first.id, 60)
            await _agree(drivers, id)
            await drivers[0].discard_state(id)
            await drivers[1].delete_snapshot(id, second.id, 60)
            await _agree(drivers, id)
        finally:
            for driver in drivers:
                await driver.close()

    async def test_both_refuse_alike(self, place: Lab, controller: Controller) -> None:
        machine = await create(controller)
        id = backend_of(machine).target.id
        for driver in (ApiDriver(place.place), ManageDriver(place.place)):
            with pytest.raises(NotFound):
                await driver.view("no such machine")
            with pytest.raises(VirtualBoxError):
                await driver.reset(id)
            await driver.power_off(id, 5)  # repeatable
            await driver.discard_state(id)
            await driver.close()


async def _agree(drivers: tuple[Driver, Driver], id: str) -> None:
    api, manage = drivers
    ours, theirs = _in_mib(await api.view(id)), await manage.view(id)
    assert ours.disks == theirs.disks
    assert ours == theirs
    look, other = await api.look(id), await manage.look(id)
    assert (look.state, look.is_locked) == (other.state, other.is_locked)
    saved = [await driver.snapshots(id) for driver in drivers]
    shown = [
        [(s.id, s.tag, s.note, int(s.created_s), s.has_ram, s.is_current) for s in some]
        for some in saved
    ]
    assert shown[0] == shown[1]


def _in_mib(view: View) -> View:
    """VBoxManage tells the sizes of disks in whole MiB."""
    disks = [replace(disk, virtual_bytes=disk.virtual_bytes >> 20 << 20) for disk in view.disks]
    return replace(view, disks=tuple(disks))


async def _watch(driver: ApiDriver, id: str) -> None:
    async for _ in driver.changes(id):
        pass


async def _collect(driver: Driver, id: str, states: list[VmState]) -> None:
    async for state in driver.changes(id):
        states.append(state)  # noqa: PERF401 it is looked at meanwhile


async def _logged(machine: Machine, text: bytes) -> None:
    await until(lambda: text in machine.console_log.read_bytes())


async def _next(link: Link) -> bytes:
    buffer = bytearray(1)
    async with asyncio.timeout(PATIENCE_S):
        await link.receive_into(buffer)
    return bytes(buffer)


def _let_go(backend: VirtualBoxBackend) -> None:
    """Free the console's lock as the kernel does for a holder that was killed."""
    path = str(backend._console_lock)
    for entry in Path("/proc/self/fd").iterdir():
        if os.path.exists(entry) and os.readlink(entry) == path:
            import fcntl

            fcntl.flock(int(entry.name), fcntl.LOCK_UN)


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
