"""Templates of real machines, and their clones, which go apart from the first moment on."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.errors import (
    CommandFailed,
    MachineExists,
    TemplateExists,
    TemplateInUse,
    TemplateNotFound,
    TemplateUnfit,
)
from hostctl.lifecycle import MachineState
from hostctl.state import Home
from tests.homes import emptied

pytestmark = pytest.mark.vm

HALF = ".new-*/home/machines/t/qemu.pid"


@pytest.fixture
def home(template_home: Home) -> Home:
    return template_home


@pytest.fixture
async def controller(home: Home) -> AsyncIterator[Controller]:
    async with emptied(home) as controller:
        yield controller


async def test_clones_begin_where_the_template_was_and_go_apart(controller: Controller) -> None:
    one, two = await asyncio.gather(
        controller.clone("base", "one"), controller.clone("base", "two")
    )
    for machine in (one, two):
        assert await machine.read("/tmp/warm") == b"warm\n"
        assert (await machine.shell("head -c 8 /dev/vda")).stdout == b"template"
    await one.shell("echo mine >/tmp/warm; printf changed! | dd of=/dev/vda; sync", check=True)
    three = await controller.clone("base", "three")
    for machine in (two, three):
        assert await machine.read("/tmp/warm") == b"warm\n"
        assert (await machine.shell("head -c 8 /dev/vda")).stdout == b"template"
    clocks = [int((await each.shell("date +%s")).stdout) for each in (one, two, three)]
    assert max(clocks) - min(clocks) < 10


async def test_twenty_clones_draw_other_random_numbers(controller: Controller) -> None:
    names = [f"twin-{number}" for number in range(20)]
    clones = await asyncio.gather(*(controller.clone("base", name) for name in names))
    line = "head -c 16 /dev/urandom; cat /proc/sys/kernel/random/uuid"
    drawn = await asyncio.gather(*(clone.shell(line, check=True) for clone in clones))
    assert len({result.stdout[:16] for result in drawn}) == 20
    assert len({result.stdout[16:] for result in drawn}) == 20


async def test_restores_of_one_snapshot_draw_other_random_numbers(controller: Controller) -> None:
    clone = await controller.clone("base", "again")
    await clone.save_snapshot("moment")
    drawn = set()
    for _ in range(4):
        await clone.restore_snapshot("moment")
        drawn.add((await clone.exec("head", "-c", "16", "/dev/urandom", check=True)).stdout)
    assert len(drawn) == 4


async def test_a_clone_lives_as_any_machine(controller: Controller) -> None:
    clone = await controller.clone("base", "life")
    await clone.put(b"kept", "/tmp/kept")
    await clone.pause()
    await clone.resume()
    await clone.save_snapshot("moment")
    await clone.shell("rm /tmp/kept", check=True)
    await clone.restore_snapshot("moment")
    assert await clone.read("/tmp/kept") == b"kept"
    await clone.stop(force=True)
    await clone.restore_snapshot("moment")  # into a RAM that is no file any more
    assert await clone.read("/tmp/kept") == b"kept"
    await clone.stop(force=True)
    await clone.start()  # boots: the template's moment is for the beginning
    assert (await clone.shell("test -e /tmp/warm")).exit.code == 1
    assert (await clone.shell("head -c 8 /dev/vda")).stdout == b"template"
    await clone.stop(force=True)
    await clone.restore_snapshot("moment")
    assert await clone.read("/tmp/kept") == b"kept"
    report = await clone.describe()
    assert report.guest_nics == ("lo",)


async def test_a_template_in_use_stays(controller: Controller) -> None:
    clone = await controller.clone("base", "user")
    with pytest.raises(TemplateInUse, match="user"):
        await controller.delete_template("base")
    with pytest.raises(MachineExists):
        await controller.clone("base", "user")
    assert (await clone.shell("echo well")).stdout == b"well\n"


async def test_what_cannot_be_is_refused_and_leaves_nothing(controller: Controller) -> None:
    with pytest.raises(TemplateNotFound):
        await controller.clone("nobody", "x")
    spec = MachineSpec("any", image="tiny", accel="tcg")
    with pytest.raises(TemplateExists):
        await controller.create_template("base", spec)
    with pytest.raises(CommandFailed):
        await controller.create_template("bad", spec, warm=["exit 3"])
    assert [each.name for each in controller.templates()] == ["base"]
    assert controller.machines() == ()
    assert [each.name for each in controller.home.templates.iterdir()] == ["base"]


async def test_damage_and_another_qemu_are_told(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = controller.templates()
    ram = found.folder / "ram"
    saved = ram.stat()
    os.utime(ram, ns=(saved.st_atime_ns, saved.st_mtime_ns + 1))
    with pytest.raises(TemplateUnfit, match="not those that were saved"):
        found.check()
    os.utime(ram, ns=(saved.st_atime_ns, saved.st_mtime_ns))
    aside = found.folder / "aside"
    (found.folder / "state").rename(aside)
    with pytest.raises(TemplateUnfit, match="is gone"):
        found.check()
    aside.rename(found.folder / "state")
    monkeypatch.setattr("hostctl.template.MACHINE", "another")
    with pytest.raises(TemplateUnfit, match="machine was"):
        found.check()
    assert controller.machines() == ()


async def test_a_killed_creation_is_swept_by_the_next(controller: Controller) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from hostctl.controller import Controller; from hostctl.state import Home\n"
        "from hostctl.backends.interface import MachineSpec\n"
        "async def main():\n"
        "    async with Controller(Home(Path(sys.argv[1]), Path(sys.argv[2]))) as c:\n"
        "        spec = MachineSpec('x', image='tiny', accel='tcg')\n"
        "        await c.create_template('half', spec, warm=['echo up >/dev/ttyS0; sleep 60'])\n"
        "asyncio.run(main())\n"
    )
    home = controller.home
    process = subprocess.Popen([sys.executable, "-c", code, home.state, home.runtime])
    try:
        async with asyncio.timeout(60):
            while not list(home.templates.glob(HALF)):  # noqa: ASYNC110 a file tells nobody
                await asyncio.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    (pid_file,) = home.templates.glob(HALF)
    qemu = int(pid_file.read_text())
    spec = MachineSpec("any", image="tiny", accel="tcg")
    with pytest.raises(CommandFailed):
        await controller.create_template("next", spec, warm=["false"])
    assert [each.name for each in home.templates.iterdir()] == ["base"]
    assert not Path(f"/proc/{qemu}").exists()


async def test_a_throwaway_goes_with_its_owner(controller: Controller) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        await controller.clone("base", "mayfly", owner_pid=owner.pid)
        await controller.sweep_throwaways()
        assert await controller.machine("mayfly").state() is MachineState.RUNNING
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    await controller.sweep_throwaways()
    assert controller.machines() == ()
