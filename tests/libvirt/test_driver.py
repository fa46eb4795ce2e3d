"""libvirt's own test driver: a domain's life without QEMU, and what such a connection lacks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.backends.libvirt import binding
from hostctl.backends.libvirt.target import capabilities_of, default_uri, is_local
from hostctl.controller import Controller
from hostctl.errors import BackendError, ToolMissing, Unsupported
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home

needs_library = pytest.mark.needs("libvirt-python")
URI = "test:///default"


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    async with Controller(Home(tmp_path / "s", tmp_path / "r")) as controller:
        yield controller


@pytest.fixture
async def machine(controller: Controller) -> AsyncIterator[Machine]:
    machine = await controller.adopt("test", connect=URI)
    yield machine
    if not (await machine.state()).is_alive:
        await machine.start(wait=False)  # others in this process share the domain


@needs_library
async def test_a_life(machine: Machine) -> None:
    assert await machine.state() is MachineState.RUNNING
    for _ in range(2):
        await machine.pause()
        assert await machine.state() is MachineState.PAUSED
    for _ in range(2):
        await machine.resume()
        assert await machine.state() is MachineState.RUNNING
    await machine.stop(force=True)
    assert await machine.state() is MachineState.STOPPED
    await machine.start(wait=False)
    assert await machine.state() is MachineState.RUNNING


@needs_library
async def test_snapshots(machine: Machine) -> None:
    await machine.save_snapshot("a")
    assert [one.tag for one in await machine.list_snapshots()] == ["a"]
    await machine.restore_snapshot("a")
    assert await machine.state() is MachineState.RUNNING
    await machine.delete_snapshot("a")


@needs_library
async def test_what_it_lacks_is_refused_by_name(machine: Machine, controller: Controller) -> None:
    with pytest.raises(Unsupported) as caught:
        await machine.exec("true")
    assert caught.value.capability == "channels"
    with pytest.raises(Unsupported) as caught:
        await machine.console_endpoint()
    spec = MachineSpec("new", kernel=Path(__file__))
    with pytest.raises(Unsupported) as caught:
        await controller.create(spec, backend="libvirt", connect=URI)
    assert caught.value.capability == "create"
    assert "adopt" in str(caught.value.hint)


@needs_library
async def test_a_machine_is_the_same_in_the_next_process(
    machine: Machine, controller: Controller
) -> None:
    async with Controller(controller.home) as other:
        assert await other.machine("test").state() is MachineState.RUNNING


@needs_library
async def test_no_libvirt_there_is_one_error(controller: Controller) -> None:
    with pytest.raises(BackendError, match="connect to qemu\\+unix") as caught:
        await controller.adopt("x", connect="qemu+unix:///system?socket=/nonexistent/sock")
    assert "is libvirtd running there?" in str(caught.value.hint)


async def test_no_library_is_one_error_with_the_next_step(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    monkeypatch.setattr(binding, "_loaded", None)
    with pytest.raises(ToolMissing, match="libvirt-python") as caught:
        await controller.adopt("test", connect=URI)
    assert "pip install 'hostctl[libvirt]'" in str(caught.value.hint)


def test_a_connection_is_known_by_its_uri() -> None:
    assert capabilities_of("qemu+ssh://root@far/system").channels
    assert not capabilities_of("test:///default").channels
    assert not capabilities_of("qemu:///embed?root=/x").channels
    assert is_local("qemu:///session")
    assert is_local("qemu+unix:///system?socket=/x")
    assert not is_local("qemu+ssh://far/system")
    assert default_uri({"LIBVIRT_DEFAULT_URI": "xen:///"}) == "xen:///"
