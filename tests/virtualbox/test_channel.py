"""The suite of channels over a real VirtualBox: guest control, and the agent on its UART."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def ready(booted: LabMachine) -> LabMachine:
    """Return the machine with its services started; tests of the suite leave it so."""
    booted.restore()
    return booted


async def _folder(channel: VboxChannel | StagedChannel) -> bytes:
    folder = b"/tmp/" + os.urandom(4).hex().encode()
    (await channel.exec(Command.of("mkdir", folder))).check()
    return folder


class TestGuestControl(ChannelContract):
    @pytest.fixture
    async def subject(self, ready: LabMachine) -> AsyncIterator[Subject]:
        channel = guest_control(ready)
        await channel.connect(READY_S)
        yield Subject(channel, await _folder(channel))
        await channel.close()


class TestAgentOnUart(ChannelContract):
    @pytest.fixture
    async def subject(self, ready: LabMachine, tmp_path: Path) -> AsyncIterator[Subject]:
        channel = uart(ready, tmp_path)
        async with asyncio.timeout(READY_S):
            await channel.connect(READY_S)
            folder = await _folder(channel)
        yield Subject(channel, folder)
        await channel.close()
