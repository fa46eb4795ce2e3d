"""The channel suite over the virtio-serial ports of a real machine."""

from collections.abc import AsyncIterator

import pytest

from hostctl.connect import open_channel
from hostctl.machine import Machine
from tests.contract.test_channel import ChannelContract, Subject

pytestmark = pytest.mark.vm


@pytest.fixture
async def subject(machine: Machine) -> AsyncIterator[Subject]:
    """Yield a channel of the test's own to the machine."""
    files = machine._files
    channel = open_channel(await machine._backend.endpoints(), files.runtime, files.pulse())
    await channel.connect(60)
    await machine.exec("mkdir", "/tmp/files", check=True)
    yield Subject(channel, b"/tmp/files")
    await channel.close()


class TestVirtioSerial(ChannelContract):
    """The suite, over a machine."""
