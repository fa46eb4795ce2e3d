"""The channel suite over libvirt's streams: on this host, and through ssh."""

from collections.abc import AsyncIterator

import pytest

from hostctl.connect import open_channel
from hostctl.machine import Machine
from tests.contract.test_channel import ChannelContract, Subject

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt")]


async def subject_of(machine: Machine) -> AsyncIterator[Subject]:
    """Yield a channel of the test's own, and an empty folder in the guest."""
    files = machine._files
    channel = open_channel(await machine._backend.endpoints(), files.runtime, files.pulse())
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
