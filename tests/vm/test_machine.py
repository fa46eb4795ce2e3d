"""A machine with an agent inside, through what its life can bring."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from hostctl.controller import Controller
from hostctl.errors import ChannelClosed, ChannelReset, HostctlError, WrongState
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home

from .conftest import BASE, NAME

pytestmark = pytest.mark.vm

SOON_S = 20


async def pid_of(machine: Machine) -> int:
    pid = (await machine.describe()).pid
    assert pid is not None
    return pid


async def clock_error_s(machine: Machine) -> float:
    result = await machine.exec("date", "+%s", check=True)
    return abs(int(result.stdout) - time.time())


async def uptime_s(machine: Machine) -> float:
    return float((await machine.read("/proc/uptime")).split()[0])


class TestNoNetwork:
    async def test_is_proved_from_both_sides(self, machine: Machine) -> None:
        report = await machine.describe()
        assert report.nics == ()
        assert report.guest_nics == ("lo",)

    async def test_the_report_is_whole(self, machine: Machine) -> None:
        report = await machine.describe()
        assert report.state is MachineState.RUNNING
        assert (report.name, report.image) == (NAME, "tiny")
        assert report.uptime_s is not None
        assert report.capabilities is not None
        assert "streams" in report.capabilities
        assert [snapshot.tag for snapshot in report.snapshots] == [BASE]
        assert report.console_log.is_file()


class TestPause:
    async def test_the_guest_sleeps_and_its_clock_is_right_afterwards(
        self, machine: Machine
    ) -> None:
        began, before = time.monotonic(), await uptime_s(machine)
        await machine.pause()
        assert await machine.state() is MachineState.PAUSED
        with pytest.raises(WrongState):
            await machine.exec("true")
        await asyncio.sleep(2.5)
        await machine.resume()
        assert await clock_error_s(machine) < 2
        lived = await uptime_s(machine) - before
        assert lived < time.monotonic() - began - 2

    async def test_a_command_under_way_survives_it(self, machine: Machine) -> None:
        command = asyncio.ensure_future(machine.shell("sleep 1; echo done"))
        await asyncio.sleep(0.3)
        await machine.pause()
        await asyncio.sleep(2)
        assert not command.done()
        await machine.resume()
        assert (await command).stdout == b"done\n"


class TestSnapshot:
    async def test_brings_back_ram_and_disk(self, machine: Machine) -> None:
        write = "echo {0} >/tmp/ram; printf {0} | dd of=/dev/vda conv=fsync 2>/dev/null"
        read = "cat /tmp/ram; dd if=/dev/vda bs=3 count=1 2>/dev/null"
        await machine.shell(write.format("old"), check=True)
        await machine.save_snapshot("a")
        try:
            await machine.shell(write.format("new"), check=True)
            await machine.restore_snapshot("a")
            assert (await machine.shell(read, check=True)).stdout == b"old\nold"
        finally:
            await machine.delete_snapshot("a")

    async def test_the_clock_is_right_and_randomness_fresh(self, machine: Machine) -> None:
        seen = set()
        for _ in range(2):
            await machine.restore_snapshot(BASE)
            assert await clock_error_s(machine) < 2
            result = await machine.exec("dd", "if=/dev/urandom", "bs=16", "count=1", check=True)
            seen.add(result.stdout)
        assert len(seen) == 2

    async def test_a_request_under_way_ends_with_one_error(self, machine: Machine) -> None:
        command = asyncio.ensure_future(machine.exec("sleep", "60"))
        await asyncio.sleep(0.3)
        await machine.restore_snapshot(BASE)
        with pytest.raises(ChannelReset):
            await asyncio.wait_for(command, SOON_S)
        assert (await machine.shell("echo alive", check=True)).stdout == b"alive\n"

    async def test_one_saved_paused_is_restored_paused(self, machine: Machine) -> None:
        await machine.pause()
        await machine.save_snapshot("p")
        try:
            await machine.resume()
            await machine.restore_snapshot("p")
            assert await machine.state() is MachineState.PAUSED
            await machine.resume()
            await machine.exec("true", check=True)
        finally:
            await machine.delete_snapshot("p")

    async def test_a_stopped_machine_is_started_by_it(self, machine: Machine) -> None:
        await machine.stop(force=True)
        await machine.restore_snapshot(BASE)
        assert await clock_error_s(machine) < 2


class TestEnds:
    async def test_the_power_button_stops_it(self, machine: Machine) -> None:
        begun = time.monotonic()
        await machine.stop()
        assert await machine.state() is MachineState.STOPPED
        assert time.monotonic() - begun < SOON_S
        with pytest.raises(WrongState) as caught:
            await machine.exec("true")
        assert caught.value.hint == f"hostctl start {NAME}"

    async def test_a_paused_one_is_woken_to_stop(self, machine: Machine) -> None:
        await machine.pause()
        begun = time.monotonic()
        await machine.stop()
        assert await machine.state() is MachineState.STOPPED
        assert time.monotonic() - begun < SOON_S

    async def test_a_guest_may_power_itself_off(self, machine: Machine) -> None:
        with pytest.raises(HostctlError):
            await machine.shell("poweroff -f; sleep 60")
        await machine.wait(MachineState.STOPPED, SOON_S)
        assert not machine.console_socket.exists()

    async def test_a_killed_qemu_is_a_crash_told_within_seconds(self, machine: Machine) -> None:
        command = asyncio.ensure_future(machine.exec("sleep", "60"))
        await asyncio.sleep(0.3)
        os.kill(await pid_of(machine), signal.SIGKILL)
        with pytest.raises((ChannelClosed, ChannelReset)):
            await asyncio.wait_for(command, SOON_S)
        await machine.wait(MachineState.CRASHED, SOON_S)
        await machine.stop()
        assert await machine.state() is MachineState.STOPPED

    async def test_a_reset_ends_a_command_and_the_agent_comes_back(self, machine: Machine) -> None:
        await machine.exec("touch", "/tmp/here", check=True)
        pid = await pid_of(machine)
        command = asyncio.ensure_future(machine.exec("sleep", "60"))
        await asyncio.sleep(0.3)
        await machine.reset()
        with pytest.raises((ChannelReset, ChannelClosed)):
            await asyncio.wait_for(command, SOON_S)
        assert not (await machine.exec("test", "-e", "/tmp/here")).exit.ok
        assert await pid_of(machine) == pid


class TestOtherProcesses:
    """What a second hostctl sees, and what a killed one leaves."""

    async def test_the_machine_outlives_the_controller(self, machine: Machine, home: Home) -> None:
        await machine.exec("touch", "/tmp/here", check=True)
        async with Controller(home) as other:
            again = other.machine(NAME)
            assert await again.state() is MachineState.RUNNING
            await again.exec("test", "-e", "/tmp/here", check=True)

    async def test_two_at_once_both_work(self, machine: Machine, home: Home) -> None:
        async with Controller(home) as other:
            results = await asyncio.gather(
                *(m.shell("sleep 0.2; echo hi") for m in (machine, other.machine(NAME)) * 2)
            )
        assert [result.stdout for result in results] == [b"hi\n"] * 4

    async def test_a_script_killed_in_the_middle_of_a_command_leaves_the_port_usable(
        self, machine: Machine, home: Home
    ) -> None:
        code = (
            "import sys; from pathlib import Path; from hostctl.state import Home\n"
            "from hostctl.sync import Controller\n"
            "c = Controller(Home(Path(sys.argv[1]), Path(sys.argv[2])))\n"
            "with c.machine(sys.argv[3]).process('sh', '-c', 'echo up; sleep 60') as p:\n"
            "    print(p.read(), flush=True); p.wait()\n"
        )
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        words = [str(home.state), str(home.runtime), NAME]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *words, stdout=asyncio.subprocess.PIPE, env=environ
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"(1, b'up\\n')\n"
        process.kill()
        await process.communicate()
        results = await asyncio.gather(*(machine.exec("echo", "hi", check=True) for _ in range(4)))
        assert [result.stdout for result in results] == [b"hi\n"] * 4

    async def test_files_keep_the_old_one_when_the_guest_fails(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        (tmp_path / "f").write_bytes(b"old")
        with pytest.raises(HostctlError):
            await machine.get("/no/such/file", tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["f"]
        data = os.urandom(100_000)
        await machine.put(data, "/tmp/f")
        info = await machine.get("/tmp/f", tmp_path / "f")
        assert info.size_bytes == len(data)
        assert (tmp_path / "f").read_bytes() == data
