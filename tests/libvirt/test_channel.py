"""The channel suite over libvirt's streams, on this host and through ssh, and over its sockets."""

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from hostctl.backends.libvirt.backend import LibvirtBackend
from hostctl.backends.libvirt.binding import libvirt as library
from hostctl.connect import open_channel
from hostctl.machine import Machine
from hostctl_channels.links.interface import Endpoint
from hostctl_channels.links.stream import UnixEndpoint
from tests.contract.test_channel import ChannelContract, Subject

from . import warden
from .daemon import Daemon

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt")]


async def subject_of(
    machine: Machine, places: Mapping[str, Endpoint] | None = None
) -> AsyncIterator[Subject]:
    """Yield a channel of the test's own, and an empty folder in the guest."""
    files = machine._files
    endpoints = places or await machine._backend.endpoints()
    channel = open_channel(endpoints, files.runtime, files.pulse())
    await channel.connect(60)
    await machine.shell("rm -rf /tmp/files; mkdir /tmp/files", check=True)
    yield Subject(channel, b"/tmp/files")
    await channel.close()


class TestStream(ChannelContract):
    """The suite, over qemu+unix."""

    @pytest.fixture
    async def subject(self, machine: Machine) -> AsyncIterator[Subject]:
        async for subject in subject_of(machine):
            yield subject


@pytest.mark.slow
@pytest.mark.needs("sshd", "nc")
class TestSsh(ChannelContract):
    """The suite, over qemu+ssh."""

    @pytest.fixture
    async def subject(self, remote: Machine) -> AsyncIterator[Subject]:
        async for subject in subject_of(remote):
            yield subject


@pytest.mark.slow
class TestSocket(ChannelContract):
    """The suite, over the sockets that libvirt had QEMU open, with no libvirtd in between."""

    @pytest.fixture
    async def subject(self, machine: Machine, libvirtd: Daemon) -> AsyncIterator[Subject]:
        async for subject in subject_of(machine, sockets_of(machine, libvirtd)):
            yield subject


def sockets_of(machine: Machine, libvirtd: Daemon) -> dict[str, Endpoint]:
    """Return where the ports of the running domain are, in our view of the daemon's folders."""
    assert isinstance(machine._backend, LibvirtBackend)
    connect = library().open(libvirtd.uri)
    xml = connect.lookupByUUIDString(machine._backend.target.uuid).XMLDesc()
    connect.close()
    places: dict[str, Endpoint] = {}
    for channel in ET.fromstring(xml).iterfind("devices/channel"):
        source, target = channel.find("source"), channel.find("target")
        assert source is not None
        assert target is not None
        places[target.attrib["name"]] = UnixEndpoint(as_seen(libvirtd, source.attrib["path"]))
    return places


def as_seen(libvirtd: Daemon, path: str) -> Path:
    """Return a path of the daemon's in our own view: its view is of its own folders."""
    for name, place in warden.VIEWS.items():
        if path.startswith(f"{place}/"):
            return libvirtd.root / name / path.removeprefix(f"{place}/")
    return Path(path)
