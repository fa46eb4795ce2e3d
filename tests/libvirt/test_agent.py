"""The guest agent through libvirt: the channel suite; and our agent attached by it, and detached."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.connect import open_channel
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from tests.contract.test_channel import ChannelContract, Subject

from .daemon import Daemon

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt"), pytest.mark.slow]

NAME = "qga"


@pytest.fixture(scope="module")
def qga_home(libvirtd: Daemon) -> Iterator[Home]:
    """Return a home with a booted domain that runs QEMU's guest agent and nothing of ours."""
    with tempfile.TemporaryDirectory(prefix="hq-") as root:
        home = Home(Path(root) / "s", Path(root) / "r")
        asyncio.run(_boot(home, libvirtd.uri))
        yield home
        asyncio.run(_remove(home))


async def _boot(home: Home, uri: str) -> None:
    from hostctl_images import build

    await asyncio.to_thread(build, "tiny-qga")
    async with Controller(home) as controller:
        spec = MachineSpec(NAME, image="tiny-qga", accel="tcg")
        machine = await controller.create(spec, backend="libvirt", connect=uri)
        await machine.start()


async def _remove(home: Home) -> None:
    async with Controller(home) as controller:
        for machine in controller.machines():
            await machine.delete(force=True)


@pytest.fixture
async def guest(qga_home: Home) -> AsyncIterator[Machine]:
    async with Controller(qga_home) as controller:
        yield controller.machine(NAME)


class TestGuestAgent(ChannelContract):
    """The suite, over virDomainQemuAgentCommand."""

    @pytest.fixture
    async def subject(self, guest: Machine) -> AsyncIterator[Subject]:
        files, endpoints = guest._files, await guest._backend.endpoints()
        channel = open_channel(endpoints, files.runtime, files.pulse(), only="qga")
        await channel.connect(60)
        await guest.shell("rm -rf /tmp/files; mkdir /tmp/files", check=True)
        yield Subject(channel, b"/tmp/files")
        await channel.close()


async def test_attach_and_detach(guest: Machine) -> None:
    done = await guest.attach()
    assert (done.foothold, done.channel) == ("qga", "agent")
    guest.use_channel("agent")
    assert (await guest.exec("echo", "fast")).stdout == b"fast\n"
    guest.use_channel("auto")
    await guest.detach()
    assert (await guest.exec("echo", "slow")).stdout == b"slow\n"
    assert guest._channel
    assert guest._channel.line
    assert guest._channel.line.key == "qga"
