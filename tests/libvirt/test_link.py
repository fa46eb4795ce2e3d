"""The link suite over a libvirt stream.

Its far end is a socket of the test's: that of a port in `connect` mode is somebody else's, and
libvirt's stream goes there like QEMU itself.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hostctl.backends.libvirt import stream
from hostctl.backends.libvirt.binding import libvirt
from hostctl.backends.libvirt.park import Park
from hostctl.backends.libvirt.stream import StreamEndpoint, StreamLink
from hostctl_channels.errors import ChannelClosed, PortHeld
from hostctl_channels.links.stream import SocketLink
from tests.contract.test_link import (  # noqa: F401 collected here, too
    Pair,
    _dup,
    receive,
    test_a_cancelled_read_loses_nothing,
    test_any_buffer_is_sent_and_nothing_is_nothing,
    test_bytes_arrive_whole_and_in_order_both_ways,
    test_closing_wakes_a_reader_and_may_be_repeated,
)

from .daemon import Daemon

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt"), pytest.mark.timeout(25)]

NAME = "org.hostctl.test"
XML = """<domain type='qemu'>
<name>link</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices>
<channel type='unix'><source mode='connect' path='{path}'/>
<target type='virtio' name='{name}'/></channel>
</devices></domain>"""


class Port:
    """A running domain's port, and the socket behind it."""

    def __init__(self, uri: str, uuid: str, path: Path) -> None:
        self.uri = uri
        self.uuid = uuid
        self.path = path

    def endpoint(self, force: int = 0) -> StreamEndpoint:
        def attach(domain: Any, st: Any) -> None:
            domain.openChannel(NAME, st, force)

        return StreamEndpoint(self.uri, self.uuid, NAME, attach)


@pytest.fixture(scope="module")
def port(libvirtd: Daemon) -> Iterator[Port]:
    """Return a port of a domain that runs nothing."""
    with tempfile.TemporaryDirectory(prefix="hk-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        path = folder / "sock"
        connect = libvirt().open(libvirtd.uri)
        with _listening(path) as server:
            domain = connect.createXML(XML.format(path=path, name=NAME))
            qemu, _ = server.accept()
            uuid = domain.UUIDString()
            connect.close()
            yield Port(libvirtd.uri, uuid, path)
            connect = libvirt().open(libvirtd.uri)  # a test may have begun another libvirtd
            with suppress(libvirt().libvirtError):  # which may have lost it just now
                connect.lookupByUUIDString(uuid).destroy()
            qemu.close()
        connect.close()


def _listening(path: Path) -> Any:
    import socket

    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o777)
    server.listen()
    server.settimeout(20)
    _servers[path] = server
    return server


_servers: dict[Path, Any] = {}


@asynccontextmanager
async def connected(
    port: Port, endpoint: StreamEndpoint | None = None
) -> AsyncIterator[tuple[StreamLink, SocketLink]]:
    """Yield a stream, and the far end of its line."""
    ours = await (endpoint or port.endpoint()).open()
    accepted, _ = await asyncio.to_thread(_servers[port.path].accept)
    theirs = SocketLink(_dup(accepted.fileno()))
    accepted.close()
    async with asyncio.timeout(30):
        yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
async def pair(port: Port) -> AsyncIterator[Pair]:
    async with connected(port) as pair:
        yield pair


async def test_the_far_ends_close_is_the_end(port: Port) -> None:
    async with connected(port) as (ours, theirs):
        await theirs.send(b"last")
        theirs.close()
        assert await receive(ours, 99) == b"last"


async def test_a_line_has_one_user_until_it_is_stolen(port: Port) -> None:
    async with connected(port) as (ours, _):
        with pytest.raises(PortHeld, match="held by another connection") as caught:
            await port.endpoint().open()
        assert "--steal" in str(caught.value.hint)
        thief = await port.endpoint(force=1).open()
        accepted, _ = await asyncio.to_thread(_servers[port.path].accept)
        with suppress(ChannelClosed):
            assert await ours.receive_into(bytearray(10)) == 0
        await thief.send(b"mine")
        assert accepted.recv(10) == b"mine"
        accepted.close()
        thief.close()


async def test_a_closed_line_is_free_at_once(port: Port) -> None:
    for _ in range(5):
        async with connected(port):
            pass


async def test_a_flood_that_nobody_reads_costs_bounded_memory(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PULSE_S", 0.05)
    monkeypatch.setattr(stream, "MOST", 3 << 20)
    async with connected(port) as (ours, theirs):
        sending = asyncio.ensure_future(theirs.send(bytes(64 << 20)))
        await asyncio.sleep(1.5)
        assert not sending.done()
        assert 1 << 20 < ours._kept < 4 << 20
        buffer, got = bytearray(1 << 20), 0
        while got < 16 << 20:  # and it goes on
            got += await ours.receive_into(buffer)
        sending.cancel()


async def test_a_line_that_is_not_read_elsewhere_holds_up_nobody(port: Port) -> None:
    async with connected(port) as (ours, _):
        stuck = asyncio.ensure_future(ours.send(bytes(64 << 20)))
        await asyncio.sleep(0.5)
        assert not stuck.done()
        with pytest.raises(PortHeld):  # libvirt answers others meanwhile
            await port.endpoint().open()
        ours.close()
        with pytest.raises(ChannelClosed):
            await stuck


@pytest.fixture
def hasty(libvirtd: Daemon) -> Iterator[None]:
    """Make libvirtd hang up after six seconds, not thirty, on who gives no sign of life."""
    libvirtd.kill_libvirtd()
    libvirtd.start_libvirtd("keepalive_interval = 2\nkeepalive_count = 2\n")
    yield
    libvirtd.kill_libvirtd()
    libvirtd.start_libvirtd()


@pytest.mark.timeout(60)
async def test_a_silent_line_stays(port: Port, hasty: None) -> None:
    async with connected(port) as (ours, theirs):
        await asyncio.sleep(9)
        await theirs.send(b"hi")
        assert await receive(ours, 2) == b"hi"


@pytest.mark.timeout(60)
async def test_a_parked_line_stays(port: Port, hasty: None) -> None:
    park = Park(port.uri)
    endpoint = replace(port.endpoint(), park=park)
    async with connected(port, endpoint):
        pass
    await asyncio.sleep(9)
    [line] = park._idle
    async with connected(port, endpoint) as (ours, _):
        assert ours._line is line
    park.close()


async def test_an_unknown_port_is_a_closed_line(port: Port) -> None:
    def attach(domain: Any, st: Any) -> None:
        domain.openChannel("org.nobody", st, 0)

    endpoint = StreamEndpoint(port.uri, port.uuid, "x", attach)
    with pytest.raises(ChannelClosed, match="cannot find channel"):
        await endpoint.open()
