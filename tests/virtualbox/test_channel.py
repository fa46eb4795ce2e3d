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
pytestmark = [pytest.mark.needs("virtualbox-lab"), pytest.mark.timeout(300)]


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


# One session for all tests: it costs as much as three of them.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def controlled(ready: LabMachine) -> AsyncIterator[VboxChannel]:
    channel = guest_control(ready)
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wired(
    ready: LabMachine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StagedChannel]:
    channel = uart(ready, tmp_path_factory.mktemp("locks"))
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest.mark.asyncio(loop_scope="module")
class TestGuestControl(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def subject(self, controlled: VboxChannel) -> Subject:
        return Subject(controlled, await _folder(controlled))


@pytest.mark.asyncio(loop_scope="module")
class TestAgentOnUart(ChannelContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def subject(self, wired: StagedChannel) -> Subject:
        return Subject(wired, await _folder(wired), UART_BYTES)
