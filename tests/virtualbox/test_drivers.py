"""The two drivers, by the API and by VBoxManage: each is the other's oracle."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec
from hostctl.backends.virtualbox import bridge
from hostctl.backends.virtualbox.api import ApiDriver
from hostctl.backends.virtualbox.driver import Driver
from hostctl.backends.virtualbox.faults import NotFound, VirtualBoxError
from hostctl.backends.virtualbox.manage import ManageDriver
from hostctl.backends.virtualbox.seen import View, VmState
from hostctl.controller import Controller

from ..bootsector import COUNTER
from ..unit.hostctl.virtualbox.facts import Facts
from .boots import backend_of, create, until
from .laboratory import BOOT_MARKS, Lab

pytestmark = [*BOOT_MARKS, pytest.mark.timeout(180), pytest.mark.usefixtures("alone")]

BRIDGE = Path(bridge.__file__).parent


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
            api, manage = [await driver.live(id) for driver in drivers]
            assert api.engine == "Interpreter"  # VBoxManage cannot tell
            assert replace(api, engine=None) == manage
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


async def _collect(driver: Driver, id: str, states: list[VmState]) -> None:
    async for state in driver.changes(id):
        states.append(state)  # noqa: PERF401 it is looked at meanwhile
