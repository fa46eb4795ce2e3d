"""Guests that have only QEMU's guest agent: `tiny-qga`, booted once, with a disk mounted."""

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl import connect
from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.connect import Site, open_channel
from hostctl.controller import Controller
from hostctl.errors import ChannelReset, MonitorError, Refused, WrongState
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.quiesce import open_agent
from hostctl.state import Home
from hostctl_channels.interface import Channel
from hostctl_channels.qga import QgaChannel
from tests.contract.test_channel import ChannelContract, Subject
from tests.homes import booting, remove_machines, short_home

pytestmark = [pytest.mark.vm, pytest.mark.needs("mke2fs")]

NAME = f"qga-{os.getpid()}"
BASE = "base"


FREEZE = """
import asyncio, sys
from pathlib import Path
from hostctl.controller import Controller
from hostctl.state import Home
async def hang(tag, timeout_s):
    print("frozen", flush=True)
    await asyncio.sleep(600)
async def main(state, runtime, name):
    async with Controller(Home(Path(state), Path(runtime))) as controller:
        machine = controller.machine(name)
        machine._backend.save_snapshot = hang
        await machine.save_snapshot("still", quiesce=True)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def qga_home() -> Iterator[Home]:
    """Return a home with the booted machine in it."""
    with short_home("hq-") as home:
        disk = home.state.parent / "disk.img"
        words = ["mke2fs", "-q", "-F", "-t", "ext4", str(disk), "16M"]
        path = f"{os.environ['PATH']}:/usr/sbin"
        subprocess.run(words, check=True, timeout=30, env={**os.environ, "PATH": path})
        asyncio.run(_boot(home, disk))
        yield home
        asyncio.run(remove_machines(home))


@pytest.fixture
async def machine(qga_home: Home) -> AsyncIterator[Machine]:
    """Return the machine, just booted."""
    async with Controller(qga_home) as controller:
        machine = controller.machine(NAME)
        await machine.restore_snapshot(BASE)
        for snapshot in await machine.list_snapshots():
            if snapshot.tag != BASE:
                await machine.delete_snapshot(snapshot.tag)
        yield machine


@pytest.fixture
async def agent(machine: Machine) -> AsyncIterator[QgaChannel]:
    """Return its guest agent, for what a Channel has no word for."""
    async with open_agent(machine._backend, machine._files) as agent:
        yield agent


async def _boot(home: Home, disk: Path) -> None:
    disks = (DiskSpec(disk, format="raw"),)
    spec = MachineSpec(NAME, image="tiny-qga", disks=disks, accel="tcg")
    async with booting(home, spec) as machine:
        await machine.exec("mount", "/dev/vda", "/mnt", check=True)
        await machine.save_snapshot(BASE)


class TestQga(ChannelContract):
    """The suite of every channel."""

    @pytest.fixture
    async def subject(self, machine: Machine) -> AsyncIterator[Subject]:
        """Yield a channel of the test's own to the machine."""
        files = machine._files
        channel = open_channel(
            await machine._backend.endpoints(), files.runtime, files.pulse(), only="qga"
        )
        await channel.connect(60)
        await machine.exec("mkdir", "/tmp/files", check=True)
        await machine.close()
        yield Subject(channel, b"/tmp/files")
        await channel.close()


class TestChoice:
    async def test_show_says_which_and_why(self, machine: Machine) -> None:
        report = await machine.describe()
        assert report.channel == "QEMU guest agent"
        assert report.channel_reason is not None
        assert report.channel_reason.startswith("hostctl agent over virtio-serial: ")
        assert report.guest_nics == ("lo",)

    async def test_a_forced_one_is_the_only_one(self, machine: Machine) -> None:
        machine.use_channel("qga")
        assert (await machine.exec("true")).exit.ok
        assert (await machine.describe()).channel_reason == "as told"

    async def test_the_next_process_asks_nobody_else(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await machine.exec("true")
        agent = connect.line_named("agent")
        asked: list[Site] = []

        def ask(site: Site) -> Channel:
            asked.append(site)
            return agent.open(site)

        monkeypatch.setattr(connect, "LINES", (agent._replace(open=ask), *connect.LINES[1:]))
        async with Controller(machine._home) as controller:
            assert (await controller.machine(NAME).exec("true")).exit.ok
        assert asked == []

    async def test_the_power_button_stops_it(self, machine: Machine) -> None:
        await machine.stop()
        assert await machine.state() is MachineState.STOPPED

    async def test_so_does_the_agent(self, machine: Machine, agent: QgaChannel) -> None:
        await agent.shutdown()
        await machine.wait(MachineState.STOPPED, timeout_s=60)


class TestTime:
    async def test_a_restore_sets_the_clock(self, machine: Machine) -> None:
        now = int((await machine.exec("date", "+%s", check=True)).stdout)
        assert abs(now - time.time()) < 10

    async def test_the_clock_is_set(self, machine: Machine, agent: QgaChannel) -> None:
        await agent.set_clock(1_000_000_000)
        now = int((await machine.exec("date", "+%s", check=True)).stdout)
        assert 0 <= now - 1_000_000_000 < 60

    async def test_a_restore_resets_a_command(self, machine: Machine) -> None:
        await machine.save_snapshot("now")
        running = asyncio.create_task(machine.exec("sleep", "60"))
        await asyncio.sleep(1)
        await machine.restore_snapshot("now")
        with pytest.raises(ChannelReset):
            await running
        assert (await machine.exec("echo", "on")).stdout == b"on\n"

    async def test_a_restore_resets_a_copy(self, machine: Machine) -> None:
        await machine.save_snapshot("now")
        moved = asyncio.Event()
        size = 64 << 20
        copying = asyncio.create_task(
            machine.put(io.BytesIO(bytes(size)), "/tmp/file", progress=lambda _: moved.set())
        )
        await moved.wait()
        await machine.restore_snapshot("now")
        with pytest.raises(ChannelReset):
            await copying
        listed = await machine.exec("ls", "-A", "/tmp", check=True)
        assert b"file" not in listed.stdout

    async def test_a_pause_is_no_silence(self, machine: Machine) -> None:
        running = asyncio.create_task(machine.exec("sleep", "2"))
        await asyncio.sleep(0.5)
        await machine.pause()
        await asyncio.sleep(3)
        assert not running.done()
        await machine.resume()
        assert (await running).exit.ok


class TestQuiesce:
    async def test_frozen_while_saved_and_thawed_after(
        self, machine: Machine, agent: QgaChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[bool] = []
        save = machine._backend.save_snapshot

        async def look(tag: str, timeout_s: float) -> None:
            seen.append(await agent.is_frozen())
            await agent.close()
            await save(tag, timeout_s)

        monkeypatch.setattr(machine._backend, "save_snapshot", look)
        await machine.save_snapshot("still", quiesce=True)
        assert seen == [True]
        await self._is_thawed(machine, agent)

    async def test_what_comes_back_is_thawed(self, machine: Machine, agent: QgaChannel) -> None:
        await machine.save_snapshot("still", quiesce=True)
        await machine.restore_snapshot("still")
        await self._is_thawed(machine, agent)
        await machine.delete_snapshot("still")
        assert b"still" not in machine._files.quiesced.read_bytes()

    async def test_a_failed_save_thaws(
        self, machine: Machine, agent: QgaChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(tag: str, timeout_s: float) -> None:
            raise MonitorError("snapshot-save", "no space")

        monkeypatch.setattr(machine._backend, "save_snapshot", fail)
        with pytest.raises(MonitorError):
            await machine.save_snapshot("still", quiesce=True)
        await self._is_thawed(machine, agent)

    async def test_a_cancelled_save_thaws(
        self, machine: Machine, agent: QgaChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun = asyncio.Event()

        async def hang(tag: str, timeout_s: float) -> None:
            begun.set()
            await asyncio.sleep(60)

        monkeypatch.setattr(machine._backend, "save_snapshot", hang)
        saving = asyncio.create_task(machine.save_snapshot("still", quiesce=True))
        await begun.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        await self._is_thawed(machine, agent)

    async def test_what_a_killed_one_left_is_thawed_by_the_next(self, machine: Machine) -> None:
        home = machine._home
        words = [sys.executable, "-c", FREEZE, str(home.state), str(home.runtime), NAME]
        paths = os.pathsep.join(filter(None, sys.path))
        victim = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
        )
        assert victim.stdout is not None
        async with asyncio.timeout(60):
            assert await victim.stdout.readline() == b"frozen\n"
        victim.kill()
        await victim.wait()
        assert machine._files.frozen.exists()
        async with Controller(home) as controller:
            next_one = controller.machine(NAME)
            async with asyncio.timeout(60):
                await next_one.exec("sh", "-c", "echo x >/mnt/file; sync", check=True)
        assert not machine._files.frozen.exists()

    async def test_a_frozen_guest_says_so(self, agent: QgaChannel) -> None:
        await agent.freeze()
        agent.agent.frozen_s = 0
        with pytest.raises(OSError, match="are frozen") as caught:
            await agent.agent.start(b"true", (), None)
        assert caught.value.errno == 16
        assert await agent.thaw() > 0

    async def test_commands_and_copies_go_on_after_a_thaw(
        self, machine: Machine, agent: QgaChannel
    ) -> None:
        size = 8 << 20
        moved = asyncio.Event()
        running = asyncio.create_task(machine.exec("sh", "-c", "sleep 1; echo done"))
        copying = asyncio.create_task(
            machine.put(io.BytesIO(bytes(size)), "/tmp/file", progress=lambda _: moved.set())
        )
        await moved.wait()
        await agent.freeze()
        await asyncio.sleep(2)
        assert not running.done()
        assert not copying.done()
        await agent.thaw()
        assert (await running).stdout == b"done\n"
        assert (await copying).size_bytes == size

    async def test_a_paused_machine_is_refused(self, machine: Machine) -> None:
        await machine.pause()
        with pytest.raises(WrongState):
            await machine.save_snapshot("still", quiesce=True)

    async def _is_thawed(self, machine: Machine, agent: QgaChannel) -> None:
        assert not machine._files.frozen.exists()
        assert not await agent.is_frozen()
        await agent.close()
        await machine.exec("sh", "-c", "echo x >/mnt/file; sync", check=True, timeout_s=20)


async def test_without_a_guest_agent_quiesce_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `tiny`, which has our agent only."""
    from hostctl import quiesce

    from .conftest import BASE as TINY_BASE
    from .conftest import NAME as TINY

    monkeypatch.setattr(quiesce, "CONNECT_S", 2.0)
    async with Controller(home) as controller:
        machine = controller.machine(TINY)
        await machine.restore_snapshot(TINY_BASE)
        with pytest.raises(Refused, match="cannot quiesce") as caught:
            await machine.save_snapshot("still", quiesce=True)
        assert caught.value.hint is not None
        assert "qemu-guest-agent" in caught.value.hint
        assert [s.tag for s in await machine.list_snapshots()] == [TINY_BASE]
        assert (await machine.describe()).channel == "hostctl agent over virtio-serial"
