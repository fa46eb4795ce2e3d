"""One machine with an agent, booted once per run; each test gets it as it was then.

A restore takes half a second, a boot ten times as long; and it does not matter what a test did to
the machine: killed, paused and stopped ones are restored alike.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from tests.homes import booting, remove_machines, short_home

NAME = f"guest-{os.getpid()}"
BASE = "base"
WARM = "echo warm >/tmp/warm"
DISK = "printf template | dd of=/dev/vda conv=notrunc 2>/dev/null; sync"


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """Return a home with the booted machine in it."""
    with short_home("hv-") as home:
        asyncio.run(_boot(home))
        yield home
        asyncio.run(remove_machines(home))


@pytest.fixture(scope="session")
def template_home() -> Iterator[Home]:
    """Return a home with one template, `base`, of a machine with a disk, for all that clone it."""
    with short_home("ht-") as home:
        asyncio.run(_make_template(home))
        yield home
        asyncio.run(remove_machines(home))
        left = {each.name for each in home.templates.iterdir()}
        assert left == {"base"}


@pytest.fixture
async def controller(home: Home) -> AsyncIterator[Controller]:
    """Return a controller of the test's own, over the home of all."""
    async with Controller(home) as controller:
        yield controller


@pytest.fixture
async def machine(controller: Controller) -> Machine:
    """Return the machine, just booted."""
    machine = controller.machine(NAME)
    await machine.restore_snapshot(BASE)
    return machine


async def _make_template(home: Home) -> None:
    from hostctl_images import build

    await asyncio.to_thread(build, "tiny")
    async with Controller(home) as controller:
        disks = (DiskSpec(size_bytes=8 << 20),)
        spec = MachineSpec("any", image="tiny", disks=disks, accel="tcg")
        made = await controller.create_template("base", spec, warm=[WARM, DISK])
        assert made.name == "base"


async def key_of(machine: Machine) -> str:
    """Return the channel that reaches the guest by itself."""
    await machine.close()
    await machine.exec("true", check=True)
    assert machine._access.channel
    assert machine._access.channel.line
    return machine._access.channel.line.key


async def _boot(home: Home) -> None:
    spec = MachineSpec(NAME, image="tiny", disks=(DiskSpec(size_bytes=8 << 20),))
    async with booting(home, spec) as machine:
        await machine.save_snapshot(BASE)
