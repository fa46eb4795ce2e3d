"""The suite of channels over a real VirtualBox: guest control, and the agent on its UART."""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hostctl.backends.virtualbox.guest import BridgedControl
from hostctl.backends.virtualbox.place import Place
from hostctl_channels.interface import Command
from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.login import Login
from hostctl_channels.serial_agent import serial_agent
from hostctl_channels.staged import StagedChannel
from hostctl_channels.vbox import VboxChannel
from tests.contract.test_channel import ChannelContract, Subject
from tests.twin import StillPulse

from .laboratory import GUEST_MARKS, PASSWORD, PYTHON, Lab
from .machine import LabMachine

READY_S = 60
GUEST_BYTES = 100_001  # more than VBoxService holds at once; sha256sum, interpreted, takes its time
UART_BYTES = 20_000  # 5 KB/s is what an interpreted 16550 carries
pytestmark = [*GUEST_MARKS, pytest.mark.timeout(300)]


def place_of(lab: Lab) -> Place:
    """Return the lab's VirtualBox as the back end knows it."""
    return Place(lab.prefix, python=PYTHON)


def guest_control(machine: LabMachine, user: str = "root", password: str = PASSWORD) -> VboxChannel:
    """Return a channel to the machine, not connected yet."""
    control = BridgedControl(place_of(machine.lab), machine.name)
    return VboxChannel(control, Login(user, password), StillPulse())


def uart(machine: LabMachine, locks: Path) -> StagedChannel:
    """Return a channel to the agent on ttyS1, not connected yet."""
    return serial_agent(UnixEndpoint(machine.agent_path), locks, StillPulse())


async def _folder(channel: VboxChannel | StagedChannel) -> bytes:
    folder = b"/tmp/" + os.urandom(4).hex().encode()
    (await channel.exec(Command.of("mkdir", folder))).check()
    return folder


# One session or line for all tests of a class: to open one costs as much as three tests.
@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def session(booted: LabMachine) -> AsyncIterator[VboxChannel]:
    booted.ensure()
    channel = guest_control(booted)
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def line(
    booted: LabMachine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StagedChannel]:
    booted.ensure()
    channel = uart(booted, tmp_path_factory.mktemp("locks"))
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest.mark.asyncio(loop_scope="class")
class TestGuestControl(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="class")
    async def subject(self, session: VboxChannel) -> Subject:
        return Subject(session, await _folder(session), GUEST_BYTES)

    async def test_a_fifo_is_refused_before_it_hangs_the_service(
        self, session: VboxChannel
    ) -> None:
        (await session.exec(Command.of("mkfifo", "/tmp/fifo"))).check()
        with pytest.raises(OSError, match="no file"):
            await session.get(b"/tmp/fifo", io.BytesIO())
        (await session.exec(Command.of("rm", "/tmp/fifo"))).check()

    async def test_a_file_of_many_calls_goes_both_ways(self, session: VboxChannel) -> None:
        data, sink = os.urandom(3_000_001), io.BytesIO()
        seen: list[int] = []
        await session.put(io.BytesIO(data), len(data), b"/tmp/many", progress=seen.append)
        await session.get(b"/tmp/many", sink)
        assert sink.getvalue() == data
        assert seen[-1] == len(data)
        assert len(seen) > 3

    async def test_a_file_beyond_the_limit_is_not_taken(self, session: VboxChannel) -> None:
        await session.put(io.BytesIO(bytes(2000)), 2000, b"/tmp/large")
        with pytest.raises(OSError, match="larger than 1000 bytes"):
            await session.get(b"/tmp/large", io.BytesIO(), max_bytes=1000)

    async def test_output_that_nobody_reads_does_not_fill_our_memory(
        self, session: VboxChannel
    ) -> None:
        async with session.spawn(Command.of("cat", "/dev/zero")) as process:
            assert await process.read() is not None
            await asyncio.sleep(2)
            assert process._pieces.qsize() <= process._pieces.maxsize
        assert (await session.exec(Command.of("true"))).exit.ok

    async def test_both_streams_are_drained_together(self, session: VboxChannel) -> None:
        line = "dd if=/dev/zero bs=100k count=2 2>/dev/null; dd if=/dev/zero bs=100k count=2 >&2"
        result = await session.exec(Command.of("sh", "-c", line))
        assert len(result.stdout) == 204_800
        assert len(result.stderr) > 204_800


@pytest.mark.nightly  # six minutes: an interpreted 16550 carries 5 KB/s
@pytest.mark.asyncio(loop_scope="class")
class TestAgentOnUart(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="class")
    async def subject(self, line: StagedChannel) -> Subject:
        return Subject(line, await _folder(line), UART_BYTES)
