"""The image `tiny`, from inside a machine that runs it."""

import time

import pytest

from hostctl.lifecycle import MachineState
from hostctl.machine import Machine

pytestmark = pytest.mark.vm

STOP_S = 15  # a polite end takes half a second on an idle host; being killed takes 30


async def test_there_is_an_ordinary_user(machine: Machine) -> None:
    result = await machine.shell("id -u; cd && pwd; touch /x", user="user")
    assert result.stdout == b"1000\n/home/user\n"
    assert b"Permission denied" in result.stderr


async def test_disks_and_random_numbers_have_their_drivers(machine: Machine) -> None:
    result = await machine.shell("ls -d /sys/block/vda /dev/hwrng", check=True)
    assert result.stderr == b""


async def test_programs_are_found_by_all_their_usual_paths(machine: Machine) -> None:
    for path in ("true", "/bin/true", "/usr/bin/true", "/sbin/true", "/usr/sbin/true"):
        assert (await machine.exec(path)).exit.ok


async def test_orphans_are_reaped(machine: Machine) -> None:
    await machine.shell("(true & true &)", check=True)
    # init looks once a second.
    result = await machine.shell("sleep 2.5; ps -o ppid,stat", check=True)
    of_init = [line.split()[1] for line in result.stdout.splitlines() if line.split()[0] == b"1"]
    assert of_init
    assert not [state for state in of_init if state.startswith(b"Z")]


async def test_commands_are_not_deaf_to_ctrl_c(machine: Machine) -> None:
    result = await machine.exec("grep", "SigIgn", "/proc/self/status", check=True)
    assert int(result.stdout.split()[1], 16) & 0b110 == 0  # SIGINT and SIGQUIT


async def test_power_button_ends_it_in_order(machine: Machine) -> None:
    began = time.monotonic()
    await machine.stop()
    assert time.monotonic() - began < STOP_S
    assert await machine.state() is MachineState.STOPPED
    assert "Power down" in machine.console_log.read_text(errors="replace")


async def test_poweroff_inside_ends_the_machine(machine: Machine) -> None:
    await machine.shell("(sleep 1; poweroff) >/dev/null 2>&1 &")
    await machine.wait(MachineState.STOPPED, STOP_S)
