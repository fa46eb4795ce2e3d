"""The guest agent through libvirt: the channel suite, what is too long for it, and attach by it."""

import io
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.backends.libvirt.agent import LibvirtExchange
from hostctl.backends.libvirt.backend import LibvirtBackend
from hostctl.backends.libvirt.binding import libvirt as library
from hostctl.backends.libvirt.domain_xml import view
from hostctl.connect import open_channel
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.errors import LocalProtocolError, OutputTooLarge
from hostctl_channels.interface import Command
from hostctl_channels.qga.wire import Request
from tests.contract.test_channel import ChannelContract, Subject

from .conftest import booted_home
from .daemon import Daemon

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt"), pytest.mark.slow]

NAME = "qga"
CARRIED = LibvirtExchange.max_request_bytes


@pytest.fixture(scope="module")
def home(libvirtd: Daemon) -> Iterator[Home]:
    """Return a home with a booted domain that runs QEMU's guest agent and nothing of ours."""
    with booted_home("hq-", MachineSpec(NAME, image="tiny-qga", accel="tcg"), libvirtd) as home:
        yield home


@pytest.fixture
async def guest(home: Home) -> AsyncIterator[Machine]:
    async with Controller(home) as controller:
        yield controller.machine(NAME)


@pytest.fixture
async def subject(guest: Machine) -> AsyncIterator[Subject]:
    files, endpoints = guest._files, await guest._backend.endpoints()
    channel = open_channel(endpoints, files.runtime, files.pulse(), only="qga")
    await channel.connect(60)
    await channel.exec(Command.of("sh", "-c", "rm -rf /tmp/files; mkdir /tmp/files"))
    yield Subject(channel, b"/tmp/files")
    await channel.close()


class TestGuestAgent(ChannelContract):
    """The suite, over virDomainQemuAgentCommand."""


@pytest.mark.parametrize("size", [CARRIED // 2, CARRIED, 300_000, 3_000_000])
async def test_input_of_any_length_arrives(subject: Subject, size: int) -> None:
    data = os.urandom(size)
    result = await subject.channel.exec(Command.of("sha256sum"), input=data)
    import hashlib

    assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    left = await subject.channel.exec(Command.of("sh", "-c", "ls -A /tmp | grep hostctl"))
    assert left.stdout == b""


async def test_long_input_comes_with_any_options(subject: Subject) -> None:
    command = Command.of("sh", "-c", 'printf "$X $PWD "; wc -c', env={"X": "a'b"}, cwd="/tmp/files")
    result = await subject.channel.exec(command, input=bytes(400_000))
    assert result.stdout == b"a'b /tmp/files 400000\n"


@pytest.mark.parametrize("size", [CARRIED // 4 * 3, CARRIED, 250_000, 5_000_000])
async def test_files_around_what_a_request_carries(subject: Subject, size: int) -> None:
    data, path = os.urandom(size), subject.folder + b"/file"
    await subject.channel.put(io.BytesIO(data), size, path)
    sink = io.BytesIO()
    await subject.channel.get(path, sink)
    assert sink.getvalue() == data


async def test_output_beyond_what_libvirt_carries_is_an_error_that_says_so(
    subject: Subject,
) -> None:
    line = "head -c 2000000 /dev/zero"
    assert len((await subject.channel.exec(Command.of("sh", "-c", line))).stdout) == 2_000_000
    with pytest.raises(OutputTooLarge, match="libvirt"):
        await subject.channel.exec(Command.of("sh", "-c", "head -c 6000000 /dev/zero"))
    assert (await subject.channel.exec(Command.of("echo", "next"))).stdout == b"next\n"


async def test_a_request_too_long_is_refused_before_it_is_sent(guest: Machine) -> None:
    backend = guest._backend
    assert isinstance(backend, LibvirtBackend)
    exchange = LibvirtExchange(backend._connection(), backend.target.uuid, guest._files.pulse())
    with pytest.raises(LocalProtocolError, match="libvirt carries"):
        await exchange.ask(Request.of("guest-exec", {"path": "x" * CARRIED}), 5)


async def test_attach_and_detach(guest: Machine) -> None:
    done = await guest.attach()
    assert (done.foothold, done.channel) == ("qga", "agent")
    guest.use_channel("agent")
    assert (await guest.exec("echo", "fast")).stdout == b"fast\n"
    guest.use_channel("auto")
    await guest.detach()
    assert (await guest.exec("echo", "slow")).stdout == b"slow\n"
    assert guest._access.channel
    assert guest._access.channel.line
    assert guest._access.channel.line.key == "qga"


@pytest.fixture
def stranger(libvirtd: Daemon) -> Iterator[str]:
    """Yield the name of a domain that somebody else made: a guest agent, and no port of ours."""
    image = hostctl_images.build("tiny-qga")
    # libvirt's QEMU is another user, whom our cache is closed to.
    kernel, initrd = (shutil.copy(path, libvirtd.root) for path in (image.kernel, image.initrd))
    connect = library().open(libvirtd.uri)
    xml = STRANGER.format(kernel=kernel, initrd=initrd, append=image.append)
    domain = connect.defineXML(xml)
    domain.create()
    yield domain.name()
    domain.destroy()
    domain.undefine()
    connect.close()


STRANGER = """
<domain type='qemu'>
  <name>stranger</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{append}</cmdline></os>
  <features><acpi/></features>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>
"""


async def test_attach_to_a_domain_of_somebody_elses(libvirtd: Daemon, stranger: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hq-") as root:
        async with Controller(Home(Path(root) / "s", Path(root) / "r")) as controller:
            machine = await controller.adopt(stranger, connect=libvirtd.uri)
            await machine.wait(timeout_s=60)
            before = ports_of(libvirtd, stranger)
            assert (await machine.attach(dry_run=True)).channel == "agent"
            assert ports_of(libvirtd, stranger) == before
            await machine.attach()
            machine.use_channel("agent")
            assert (await machine.exec("echo", "fast")).stdout == b"fast\n"
            machine.use_channel("auto")
            await machine.detach()
            assert ports_of(libvirtd, stranger) == before
            assert (await machine.exec("echo", "slow")).stdout == b"slow\n"
            await machine.delete()  # which only forgets it
    assert ports_of(libvirtd, stranger) == before


def ports_of(daemon: Daemon, name: str) -> list[tuple[str | None, ...]]:
    """Return the names of a domain's ports, as it runs and as it is defined."""
    connect = library().open(daemon.uri)
    domain = connect.lookupByName(name)
    found: list[tuple[str | None, ...]] = [
        tuple(port.name for port in view(domain.XMLDesc(flags)).ports)
        for flags in (0, library().VIR_DOMAIN_XML_INACTIVE)
    ]
    connect.close()
    return found
