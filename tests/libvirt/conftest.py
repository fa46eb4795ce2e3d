"""One machine with an agent on the tests' own libvirtd, booted once; and the same one through ssh.

Tests leave it running. Each opens a controller of its own.
"""

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.backends.libvirt.backend import LibvirtBackend
from hostctl.backends.libvirt.connection import borrow, give_back
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from tests.homes import booting, remove_machines, short_home

from .daemon import Daemon

NAME = "tiny"


@pytest.fixture(scope="session")
def home(libvirtd: Daemon) -> Iterator[Home]:
    """Return a home with the booted machine in it."""
    with booted_home("hv-", MachineSpec(NAME, image="tiny", accel="tcg"), libvirtd) as home:
        yield home


@pytest.fixture(scope="session")
def ssh_uri(libvirtd: Daemon) -> Iterator[str]:
    """Return the URI of the same libvirtd through an sshd on loopback."""
    with tempfile.TemporaryDirectory(prefix="hs-") as folder:
        uri = libvirtd.start_sshd(Path(folder))
        connection = borrow(uri)  # so that lines outlive the tests, as they outlive commands
        yield uri
        asyncio.run(give_back(connection))


@pytest.fixture
async def controller(home: Home) -> AsyncIterator[Controller]:
    async with Controller(home) as controller:
        yield controller


@pytest.fixture
async def machine(controller: Controller) -> Machine:
    return controller.machine(NAME)


@pytest.fixture
async def remote(controller: Controller, ssh_uri: str) -> AsyncIterator[Machine]:
    """Return the machine as it is seen from another host."""
    here = controller.machine(NAME)
    assert isinstance(here._backend, LibvirtBackend)
    target = dataclasses.replace(here._backend.target, uri=ssh_uri)
    backend = LibvirtBackend(here.spec, here._files, target.to_json())
    machine = Machine(controller.home, here.spec, here._files, backend)
    yield machine
    await machine.close()


@contextmanager
def booted_home(prefix: str, spec: MachineSpec, libvirtd: Daemon) -> Iterator[Home]:
    """Yield a home with a booted domain in it."""

    async def boot(home: Home) -> None:
        async with booting(home, spec, backend="libvirt", connect=libvirtd.uri):
            pass

    with short_home(prefix) as home:
        asyncio.run(boot(home))
        yield home
        asyncio.run(remove_machines(home))
