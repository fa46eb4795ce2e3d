"""Our agent brought into a guest with the Additions and nothing of ours, and taken out again."""

import asyncio
import hashlib
import io
import os
import socket
from pathlib import Path

import pytest

from hostctl.attach import attach, detach
from hostctl.backends.virtualbox.guest import GuestEndpoint
from hostctl.connect import Site, open_channel
from hostctl_channels.interface import Command, PutOptions
from hostctl_channels.links.interface import Endpoint
from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import GUEST_CONTROL, SERIAL
from tests.twin import StillPulse

from .laboratory import GUEST_MARKS, PASSWORD
from .machine import LabMachine
from .test_channel import place_of

EVERY_BYTE = bytes(range(256))
pytestmark = [*GUEST_MARKS, pytest.mark.timeout(300)]


def site_of(machine: LabMachine, folder: Path) -> Site:
    """Return where the machine's lines are, as the back end tells it, with a login."""
    login = folder / "login.toml"
    login.write_text(f'user = "root"\npassword = "{PASSWORD}"\n')
    login.chmod(0o600)
    endpoints: dict[str, Endpoint] = {
        SERIAL: UnixEndpoint(machine.agent_path),
        GUEST_CONTROL: GuestEndpoint(place_of(machine.lab), machine.name),
    }
    return Site(endpoints, folder, StillPulse(), login)


async def test_guest_control_brings_the_agent_to_the_uart(
    booted: LabMachine, tmp_path: Path
) -> None:
    await asyncio.to_thread(booted.restore, "mute")
    await asyncio.to_thread(booted.await_additions)
    site, record = site_of(booted, tmp_path), tmp_path / "attached.json"
    done = await attach(site, record, None)
    assert (done.foothold, done.channel) == ("guestcontrol", "serial")
    channel = open_channel(site.endpoints, tmp_path, site.pulse, only="serial")
    assert (await channel.exec(Command.of("uname"))).stdout == b"Linux\n"
    await channel.close()
    await detach(site, record)
    assert not record.exists()


async def test_the_best_line_is_guest_control_where_somebody_logs_in(
    ready: LabMachine, tmp_path: Path
) -> None:
    site = site_of(ready, tmp_path)
    channel = open_channel(site.endpoints, tmp_path, site.pulse, login=site.login)
    assert (await channel.exec(Command.of("uname"))).exit.ok
    assert channel.line is not None
    assert channel.line.key == "guestcontrol"
    await channel.close()


async def test_the_best_line_is_the_agents_where_nobody_does_and_it_carries_all(
    ready: LabMachine, tmp_path: Path
) -> None:
    """The rest of the channels' suite is nightly, as an interpreted 16550 carries 5 KB/s."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(ready.agent_path))
        raw.sendall(b"S 0123456789abcdef 1000 half of a request\xff\0")
    site = site_of(ready, tmp_path)
    channel = open_channel(site.endpoints, tmp_path, site.pulse)
    line = "cat; printf err >&2; exit 3"
    result = await channel.exec(Command.of("sh", "-c", line), input=EVERY_BYTE)
    assert (result.exit.code, result.stdout, result.stderr) == (3, EVERY_BYTE, b"err")
    assert channel.line is not None
    assert channel.line.key == "serial"
    data, sink = os.urandom(4000), io.BytesIO()
    put = await channel.put(io.BytesIO(data), len(data), b"/tmp/f", PutOptions(verify="sha256"))
    got = await channel.get(b"/tmp/f", sink, verify="sha256")
    assert sink.getvalue() == data
    assert put.sha256 == got.sha256 == hashlib.sha256(data).hexdigest()
    await channel.close()
