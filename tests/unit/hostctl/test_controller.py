import os
from dataclasses import replace
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.controller import Controller
from hostctl.errors import ConfigError, HostctlError, MachineExists, MachineNotFound, ToolFailed
from hostctl.record import Record
from hostctl.spec import MAX_DISKS
from hostctl.state import Home, read_json, write_json

pytestmark = pytest.mark.needs("qemu-img")


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(Home(tmp_path / "s", tmp_path / "r"))


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    (tmp_path / "kernel").touch()
    return MachineSpec("web", kernel=tmp_path / "kernel")


async def test_a_machine_is_found_by_its_name_and_is_one_object(
    controller: Controller, spec: MachineSpec
) -> None:
    made = await controller.create(spec)
    assert made is controller.machine("web")
    assert made.spec == spec
    assert (made.directory / "vmstate.qcow2").is_file()


async def test_machines_are_sorted(controller: Controller, spec: MachineSpec) -> None:
    for name in ("b", "a.1", "c"):
        await controller.create(replace(spec, name=name))
    assert [machine.name for machine in controller.machines()] == ["a.1", "b", "c"]


async def test_a_machine_made_anew_with_another_shape_is_another_object(
    controller: Controller, spec: MachineSpec
) -> None:
    old = await controller.create(spec)
    await old.delete()
    with pytest.raises(MachineNotFound):
        controller.machine("web")
    assert await controller.create(replace(spec, cpus=2)) is not old


async def test_one_made_anew_of_something_else_is_another_object(
    controller: Controller, spec: MachineSpec, tmp_path: Path
) -> None:
    old = await controller.create(spec)
    await old.delete()
    record = Record("qemu", spec, {"ram": str(tmp_path / "ram")})
    assert await controller._make(record) is not old


async def test_a_name_that_is_taken_keeps_its_machine(
    controller: Controller, spec: MachineSpec
) -> None:
    await controller.create(spec)
    with pytest.raises(MachineExists):
        await controller.create(replace(spec, cpus=2))
    assert controller.machine("web").spec.cpus == 1


@pytest.mark.parametrize("wrong", ["kernel", "initrd", "disk", "size", "image", "disks"])
async def test_a_failed_create_leaves_nothing(
    controller: Controller,
    spec: MachineSpec,
    wrong: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(tmp_path / "cache"))
    nothing = tmp_path / "nothing"
    specs = {
        "kernel": replace(spec, kernel=nothing),
        "initrd": replace(spec, initrd=nothing),
        "disk": replace(spec, disks=(DiskSpec(nothing),)),
        "size": replace(spec, disks=(DiskSpec(size_bytes=1 << 63),)),
        "image": MachineSpec("web", image="tiny"),
        "disks": replace(spec, disks=(DiskSpec(size_bytes=1),) * (MAX_DISKS + 1)),
    }
    with pytest.raises(HostctlError) as caught:
        await controller.create(specs[wrong])
    assert (
        isinstance(caught.value, ToolFailed)
        or caught.value.hint
        or "is not a file" in str(caught.value)
    )
    assert os.listdir(controller.home.machines) == []


async def test_a_spec_of_another_version_is_not_guessed_at(
    controller: Controller, spec: MachineSpec
) -> None:
    path = (await controller.create(spec)).directory / "machine.json"
    write_json(path, {**(read_json(path) or {}), "version": 99})
    with pytest.raises(ConfigError, match="has version 99"):
        controller.machine("web")


@pytest.mark.parametrize("text", ["{", '{"version": 1}', '{"version": 1, "backend": 1, "spec": 2}'])
async def test_a_machine_that_cannot_be_read_does_not_hide_the_others(
    controller: Controller, spec: MachineSpec, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    await controller.create(spec)
    broken = await controller.create(replace(spec, name="broken"))
    (broken.directory / "machine.json").write_text(text)
    assert [machine.name for machine in controller.machines()] == ["web"]
    assert "machine broken left out" in caplog.text


async def test_relative_paths_are_kept_absolute(
    controller: Controller, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    machine = await controller.create(replace(spec, kernel=Path("kernel")))
    assert machine.spec.kernel == tmp_path / "kernel"


async def test_leaving_the_controller_closes_and_may_be_repeated(
    controller: Controller, spec: MachineSpec
) -> None:
    async with controller:
        await controller.create(spec)
    await controller.close()
