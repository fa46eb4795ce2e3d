"""One machine with an agent, booted once per run; each test gets it as it was then.

A restore takes half a second, a boot ten times as long; and it does not matter what a test did to
the machine: killed, paused and stopped ones are restored alike.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home

NAME = f"guest-{os.getpid()}"
BASE = "base"
WARM = "echo warm >/tmp/warm"
DISK = "printf template | dd of=/dev/vda conv=notrunc 2>/dev/null; sync"


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """Return a home with the booted machine in it."""
    # Not tmp_path: its long name would not leave room for the sockets' paths.
    with tempfile.TemporaryDirectory(prefix="hv-") as root:
        home = Home(Path(root) / "s", Path(root) / "r")
        asyncio.run(_boot(home))
        yield home
        asyncio.run(_remove(home))


@pytest.fixture(scope="session")
def template_home() -> Iterator[Home]:
    """Return a home with one template, `base`, of a machine with a disk, for all that clone it."""
    with tempfile.TemporaryDirectory(prefix="ht-") as root:
        home = Home(Path(root) / "s", Path(root) / "r")
        asyncio.run(_make_template(home))
        yield home
        asyncio.run(_remove(home))
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


async def _boot(home: Home) -> None:
    from hostctl_images import build

    await asyncio.to_thread(build, "tiny")
    async with Controller(home) as controller:
        disks = (DiskSpec(size_bytes=8 << 20),)
        machine = await controller.create(MachineSpec(NAME, image="tiny", disks=disks))
        try:
            await machine.start()
            await machine.save_snapshot(BASE)
        except BaseException:
            await machine.delete(force=True)
            raise


async def _remove(home: Home) -> None:
    async with Controller(home) as controller:
        for name in (*home.names(), *home.waiting()):
            await controller.machine(name).delete(force=True)
