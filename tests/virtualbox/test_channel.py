"""The suite of channels over a real VirtualBox: guest control, and the agent on its UART."""

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

from .laboratory import PASSWORD, PYTHON, Lab
from .machine import LabMachine

READY_S = 60
UART_BYTES = 20_000  # 5 KB/s is what an interpreted 16550 carries
pytestmark = [pytest.mark.nightly, pytest.mark.needs("virtualbox-lab"), pytest.mark.timeout(300)]


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
async def session(ready: LabMachine) -> AsyncIterator[VboxChannel]:
    channel = guest_control(ready)
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def line(
    ready: LabMachine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StagedChannel]:
    channel = uart(ready, tmp_path_factory.mktemp("locks"))
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest.mark.asyncio(loop_scope="class")
class TestGuestControl(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="class")
    async def subject(self, session: VboxChannel) -> Subject:
        return Subject(session, await _folder(session))


@pytest.mark.nightly  # six minutes: an interpreted 16550 carries 5 KB/s
@pytest.mark.asyncio(loop_scope="class")
class TestAgentOnUart(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="class")
    async def subject(self, line: StagedChannel) -> Subject:
        return Subject(line, await _folder(line), UART_BYTES)
