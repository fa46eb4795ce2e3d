"""A port plugged into a machine that runs: the agent finds it and serves it."""

from pathlib import Path

import pytest

from hostctl.backends.qemu.monitor import monitor
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.interface import Command
from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import WORK, PortPool

pytestmark = [pytest.mark.vm, pytest.mark.needs("qemu")]

NAME = "org.hostctl.5"


async def test_a_new_port_is_served(machine: Machine, home: Home, tmp_path: Path) -> None:
    files = home.files(machine.name)
    socket = files.socket("5")
    backend = {"type": "socket", "data": {"addr": _unix(socket), "server": True, "wait": False}}
    port = {"driver": "virtserialport", "bus": "vser0.0", "chardev": "hot", "name": NAME}
    async with monitor(files.socket("qmp")) as qmp:
        await qmp.execute("chardev-add", {"id": "hot", "backend": backend})
        await qmp.execute("device_add", {**port, "id": "hot", "nr": "20"})
    # The wire does not name the port it runs on: our channel may take it for its first one.
    channel = AgentChannel(PortPool({WORK[0]: UnixEndpoint(socket)}, tmp_path), files.pulse())
    try:
        await channel.connect(30)
        result = await channel.exec(Command.of("sh", "-c", "cat /sys/class/virtio-ports/*p20/name"))
    finally:
        await channel.close()
        await machine.stop(force=True)  # the snapshot of all tests knows no such device
    assert result.stdout.decode().strip() == NAME


def _unix(path: Path) -> dict[str, object]:
    return {"type": "unix", "data": {"path": str(path)}}
