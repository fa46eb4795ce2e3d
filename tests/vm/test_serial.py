"""A real ttyS1: our agent on it, a real getty and login on it, and what they have in common."""

import os
from collections.abc import AsyncIterator

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.console import open_console
from hostctl_channels.errors import LoginFailed
from hostctl_channels.interface import Command
from hostctl_channels.login import Login
from hostctl_channels.serial_agent import open_serial
from hostctl_channels.staged import StagedChannel
from tests.contract.test_channel import ChannelContract, Subject

pytestmark = [pytest.mark.vm, pytest.mark.slow]

LINE = "serial.1"
ANSWER_S = 60
AGENT = "setsid sh -c 'while :; do hostctl-agent /dev/ttyS1; done' </dev/null >/dev/null 2>&1 &"
# A root with the password "let me in", and a getty as init would have started it.
HASH = "$1$hostctl$BNI8Hy49p0tqdwVZ.lU8d1"
GETTY = f"""sed -i 's|^root:x:|root:{HASH}:|' /etc/passwd
setsid sh -c 'while :; do getty -L 115200 ttyS1 vt100; done' </dev/null >/dev/null 2>&1 &"""

AGENT_BYTES, LOGIN_BYTES = 100_001, 40_001  # a 16550 carries some 10 KiB a second, under emulation


def line_of(machine: Machine) -> str:
    return str(machine._files.socket(LINE))


def agent_of(machine: Machine) -> StagedChannel:
    locks = machine._files.runtime / "lines"
    locks.mkdir(exist_ok=True)
    return open_serial(line_of(machine), lock_dir=locks, pulse=machine._files.pulse())


def console_of(machine: Machine, password: str = "let me in") -> StagedChannel:
    locks = machine._files.runtime / "lines"
    locks.mkdir(exist_ok=True)
    login = Login("root", password)
    return open_console(line_of(machine), login, lock_dir=locks, pulse=machine._files.pulse())


class TestAgentOnTtyS1(ChannelContract):
    """The suite, through a 16550."""

    @pytest.fixture
    async def subject(self, machine: Machine) -> AsyncIterator[Subject]:
        await machine.shell(AGENT, check=True)
        await machine.exec("mkdir", "/tmp/files", check=True)
        channel = agent_of(machine)
        await channel.connect(ANSWER_S)
        yield Subject(channel, b"/tmp/files", AGENT_BYTES)
        await channel.close()


class TestLoginOnTtyS1(ChannelContract):
    """The suite, through busybox's getty and login."""

    @pytest.fixture
    async def subject(self, machine: Machine) -> AsyncIterator[Subject]:
        await machine.shell(GETTY, check=True)
        await machine.exec("mkdir", "/tmp/files", check=True)
        channel = console_of(machine)
        await channel.connect(ANSWER_S)
        yield Subject(channel, b"/tmp/files", LOGIN_BYTES)
        await channel.close()


async def test_a_wrong_password_is_refused_once(machine: Machine) -> None:
    await machine.shell(GETTY, check=True)
    channel = console_of(machine, "not this")
    with pytest.raises(LoginFailed):
        await channel.connect(ANSWER_S)
    await channel.close()


async def test_kernel_messages_are_survived(machine: Machine) -> None:
    """The line is a console too: the kernel prints whatever it likes, whenever."""
    await machine.shell(GETTY, check=True)
    channel = console_of(machine)
    await channel.connect(ANSWER_S)
    noise = "while :; do echo noise from the kernel >/dev/ttyS1; sleep 0.3; done >/dev/null 2>&1 &"
    await machine.shell(noise, check=True)
    data = os.urandom(20_000)
    result = await channel.exec(Command.of("cat"), input=data)
    assert result.stdout == data
    await channel.close()


async def test_both_survive_a_restore(machine: Machine) -> None:
    await machine.shell(AGENT, check=True)
    channel = agent_of(machine)
    assert (await channel.exec(Command.of("echo", "1"))).stdout == b"1\n"
    await machine.save_snapshot("with-agent")
    await machine.restore_snapshot("with-agent")
    assert (await channel.exec(Command.of("echo", "2"))).stdout == b"2\n"
    await channel.close()
    await machine.delete_snapshot("with-agent")


async def test_the_kernels_word_starts_the_agent_there(home: Home) -> None:
    async with Controller(home) as controller:
        spec = MachineSpec("word", image="tiny", append="hostctl.serial=ttyS1")
        machine = await controller.create(spec)
        try:
            await machine.start()
            channel = agent_of(machine)
            await channel.connect(ANSWER_S)
            assert (await channel.exec(Command.of("tty"))).stdout == b"not a tty\n"
            status = await channel.exec(Command.of("grep", "SigIgn", "/proc/self/status"))
            assert int(status.stdout.split()[1], 16) & 0b110 == 0
            await channel.close()
        finally:
            await machine.delete(force=True)
