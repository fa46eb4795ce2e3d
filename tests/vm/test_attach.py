"""Our agent in guests that never heard of us: by the guest agent, by a login; kept; taken away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.attach import KEPT, PASSING
from hostctl.controller import Controller
from hostctl.errors import AttachFailed
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl_channels.ports import PORTS, SERIAL

from .conftest import key_of
from .foreign import Foreign, foreign_qemu
from .test_serial import GETTY

pytestmark = [pytest.mark.vm, pytest.mark.slow]

PATIENCE_S = 60
# All of it: its folder has its number, and those of its workers. busybox has no pkill here.
KILL_AGENT = """for d in /run/hostctl.*; do
for f in $d/*.pid; do read -r pid rest <$f && kill -9 $pid || exit; done; kill -9 ${d##*.} || exit
done"""
PORTS_IN_GUEST = "cat /sys/class/virtio-ports/*/name"


@pytest.fixture
async def foreign() -> AsyncIterator[Foreign]:
    async with foreign_qemu() as foreign:
        yield foreign


@pytest.fixture
async def stranger(controller: Controller, foreign: Foreign) -> AsyncIterator[Machine]:
    """Yield somebody else's machine, whose guest agent answers."""
    machine = await controller.adopt_foreign(
        "stranger", monitor=foreign.monitor, lines=foreign.lines
    )
    await machine.wait(timeout_s=PATIENCE_S)
    yield machine
    await machine.delete()
    assert foreign.process.returncode is None  # forgotten, not harmed


async def told(machine: Machine, line: str) -> str:
    return (await machine.shell(line)).stdout.decode()


async def test_attach_by_the_guest_agent_and_detach_again(stranger: Machine) -> None:
    assert await key_of(stranger) == "qga"
    before = await told(stranger, f"{PORTS_IN_GUEST}; ls /run; ls /usr/local/lib")
    plan = await stranger.attach(dry_run=True)
    assert (plan.foothold, plan.channel, plan.path) == ("qga", "agent", PASSING)
    assert await told(stranger, f"{PORTS_IN_GUEST}; ls /run; ls /usr/local/lib") == before

    assert await stranger.attach() == plan
    assert await key_of(stranger) == "agent"
    data = bytes(range(256)) * 4096
    await stranger.put(data, "/tmp/file")
    assert await stranger.read("/tmp/file") == data
    assert (await stranger.attach()).steps == ("its agent answers already",)
    assert set((await told(stranger, PORTS_IN_GUEST)).split()) >= set(PORTS)

    await stranger.detach()
    await gone(stranger, PASSING)
    assert await key_of(stranger) == "qga"
    assert await told(stranger, f"{PORTS_IN_GUEST}; ls /run; ls /usr/local/lib") == before
    with pytest.raises(AttachFailed, match="nothing is attached"):
        await stranger.detach()


async def gone(machine: Machine, path: str, others: str = "") -> None:
    """Wait until the agent has left, with its folder; `others` are those of other agents."""
    async with asyncio.timeout(PATIENCE_S):
        while await told(machine, f"ls -d {path} /run/hostctl.*") != others:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_kept_agent_comes_back_and_can_be_removed(stranger: Machine) -> None:
    table = await told(stranger, "cat /etc/inittab")
    assert (await stranger.attach(persist=True)).is_service
    assert KEPT in await told(stranger, "cat /etc/inittab")
    stranger.use_channel("qga")
    old = await told(stranger, "ls -d /run/hostctl.*")
    await stranger.shell(KILL_AGENT, check=True)
    stranger.use_channel("agent")
    await stranger.wait(timeout_s=PATIENCE_S)
    assert await told(stranger, "ls -d /run/hostctl.*") != old
    stranger.use_channel("auto")
    await stranger.detach()
    await gone(stranger, KEPT)
    assert await told(stranger, "cat /etc/inittab") == table


async def test_an_attach_that_was_killed_half_way_is_finished_by_the_next(
    stranger: Machine,
) -> None:
    await stranger._backend.plug(PORTS[:3])
    await stranger.attach()
    assert await key_of(stranger) == "agent"
    await stranger.detach()


async def test_life_is_led_by_the_monitor(stranger: Machine) -> None:
    await stranger.pause()
    assert await stranger.state() is MachineState.PAUSED
    await stranger.resume()
    assert await key_of(stranger) == "qga"
    report = await stranger.describe()
    assert report.nics == ()


async def test_no_foothold_is_an_error_that_tells_all_that_was_tried(
    controller: Controller,
) -> None:
    async with foreign_qemu(serial_bus=False) as foreign:
        machine = await controller.adopt_foreign("deaf", monitor=foreign.monitor)
        with pytest.raises(AttachFailed, match="no foothold") as caught:
            await machine.attach()
        assert "no such line" in str(caught.value)
        assert not machine.is_attached
        await machine.delete()


async def test_attach_by_a_login_on_a_line_and_nothing_else(
    machine: Machine, controller: Controller, tmp_path: Path
) -> None:
    own = await told(machine, "ls -d /run/hostctl.*")
    await machine.shell(GETTY, check=True)
    login = tmp_path / "login"
    login.write_text('user = "root"\npassword = "let me in"\n')
    login.chmod(0o600)
    socket = str(machine._files.socket(SERIAL))
    line = await controller.adopt_foreign("line", lines={SERIAL: socket})
    try:
        with pytest.raises(AttachFailed, match="nobody said who logs in"):
            await line.attach()
        line.set_login(login)
        looks = {look.key: look.answers for look in await line.channels()}
        assert looks == dict.fromkeys(looks, False) | {"console": True}
        done = await line.attach()
        assert (done.foothold, done.channel) == ("console", "serial")
        line.use_channel("serial")
        assert (await line.exec("echo", "hi", check=True)).stdout == b"hi\n"
        line.use_channel("auto")
        await line.detach()
        await gone(machine, PASSING, own)
        line.use_channel("console")
        assert (await line.exec("echo", "hi", check=True)).stdout == b"hi\n"
    finally:
        await line.delete()
