"""Templates of machines that run: their moment is kept, and they go on as if nothing had been."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl import procs
from hostctl.backends.qemu.backend import QemuBackend
from hostctl.controller import Controller
from hostctl.errors import BackendError, CommandFailed, HostctlError, Unsupported, WrongState
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home
from tests.homes import emptied

from .conftest import BASE, NAME

pytestmark = pytest.mark.vm

COUNT = "while :; do n=$((n + 1)); echo $n >/tmp/count; sleep 0.1; done"
FIRST, SECOND = "dd if=/dev/vda bs=8 count=1 2>/dev/null", "dd of=/dev/vda conv=notrunc"


@pytest.fixture
async def controller(template_home: Home) -> AsyncIterator[Controller]:
    async with emptied(template_home, keep=["base"]) as controller:
        yield controller


@pytest.fixture
async def machine(controller: Controller) -> Machine:
    """Return a machine that has done something, and is at it still."""
    machine = await controller.clone("base", "source")
    await machine.shell("echo mine >/tmp/mine", check=True)
    await machine.shell(f"printf original | {SECOND} 2>/dev/null; sync", check=True)
    await machine.spawn("sh", "-c", COUNT)
    return machine


async def test_the_moment_is_kept_and_the_machine_goes_on(
    controller: Controller, machine: Machine
) -> None:
    pid = (await machine.describe()).pid
    made = await controller.create_template_from("from", "source", warm=["echo warmed >/tmp/w"])
    assert (made.recipe, made.spec.memory_mib) == (None, machine.spec.memory_mib)
    report = await machine.describe()
    assert (report.pid, report.snapshots) == (pid, ())
    assert (await machine.shell("test -e /tmp/w")).exit.code == 1
    await machine.shell(f"printf anything | {SECOND} 2>/dev/null; sync", check=True)
    await machine.delete(force=True)
    one, two = await controller.clone_all("from", ["one", "two"])
    for clone in (one, two):
        assert await clone.read("/tmp/mine") == b"mine\n"
        assert await clone.read("/tmp/w") == b"warmed\n"
        assert (await clone.shell(FIRST)).stdout == b"original"
        counted = int(await clone.read("/tmp/count"))
        await clone.shell(f"until [ $(cat /tmp/count) -gt {counted} ]; do :; done", timeout_s=20)
    disk = made.folder / "disks" / "disk0.qcow2"
    argv = ["qemu-img", "info", "-U", "--output=json", str(disk)]
    info = json.loads((await procs.run(argv, timeout_s=9)).stdout)
    assert "backing-filename" not in info  # that of the source lies in a template, which may go


async def test_whatever_fails_the_machine_goes_on_and_nothing_is_left(
    controller: Controller, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise BackendError("told to")

    for step in ("save_snapshot", "copy_moment", "load_ram", "save_moment"):
        with monkeypatch.context() as patch:
            patch.setattr(QemuBackend, step, fail)
            with pytest.raises(BackendError, match="told to"):
                await controller.create_template_from("from", "source")
        await goes_on(controller, machine)
    real = procs.run

    async def refuse(argv: list[str], *, timeout_s: float) -> procs.Finished:
        if "convert" in argv:
            argv = ["qemu-img", "convert", "/nowhere", "/nowhere"]
        return await real(argv, timeout_s=timeout_s)

    with pytest.raises(CommandFailed):
        await controller.create_template_from("from", "source", warm=["false"])
    monkeypatch.setattr(procs, "run", refuse)
    with pytest.raises(HostctlError):
        await controller.create_template_from("from", "source")
    await goes_on(controller, machine)


async def test_a_machine_that_has_booted_is_kept_too_while_it_is_paused(home: Home) -> None:
    async with Controller(home) as controller:
        booted = controller.machine(NAME)
        await booted.restore_snapshot(BASE)
        await booted.shell("echo here >/tmp/here", check=True)
        await booted.pause()
        await controller.create_template_from("booted", NAME)
        assert await booted.state() is MachineState.PAUSED
        await booted.resume()
        clone = await controller.clone("booted", "clone")
        assert await clone.read("/tmp/here") == b"here\n"
        await clone.delete(force=True)
        await controller.delete_template("booted")
        await booted.exec("true", check=True)


async def test_one_that_does_not_run_here_is_refused(
    controller: Controller, machine: Machine
) -> None:
    await controller.adopt_foreign("line", lines={"serial.1": "/nowhere"})
    with pytest.raises(Unsupported, match="QEMU of hostctl's own"):
        await controller.create_template_from("from", "line")
    await machine.stop(force=True)
    with pytest.raises(WrongState, match="it is stopped"):
        await controller.create_template_from("from", "source")


async def goes_on(controller: Controller, machine: Machine) -> None:
    """Check that the machine runs, and that nothing is left of a template."""
    before = int(await machine.read("/tmp/count"))
    await machine.shell(f"until [ $(cat /tmp/count) -gt {before} ]; do :; done", timeout_s=20)
    assert await machine.list_snapshots() == ()
    assert [each.name for each in Path(controller.home.templates).iterdir()] == ["base"]
