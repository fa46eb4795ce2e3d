"""Every link moves bytes the same way; the faulty one fails exactly as told."""

import asyncio
import os
import socket
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from hostctl_channels.errors import ChannelClosed
from hostctl_channels.links import serial_line
from hostctl_channels.links.faulty import Faults, FaultyLink
from hostctl_channels.links.interface import Link
from hostctl_channels.links.memory import open_pair
from hostctl_channels.links.serial_line import DescriptorLine, open_serial_line
from hostctl_channels.links.stream import SocketLink, open_unix
from tests.twin import PtyLink

Pair = tuple[Link, Link]


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Pair]:
    yield open_pair()


@asynccontextmanager
async def faulty(folder: Path) -> AsyncIterator[Pair]:
    """Yield a link that is slow and short, and no worse."""
    ours, theirs = open_pair()
    yield FaultyLink(ours, Faults(piece_bytes=777, delay_s=0.0001)), theirs


@asynccontextmanager
async def unix(folder: Path) -> AsyncIterator[Pair]:
    accepted: asyncio.Queue[SocketLink] = asyncio.Queue()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        accepted.put_nowait(SocketLink(_dup(sock.fileno())))
        writer.close()

    server = await asyncio.start_unix_server(accept, folder / "sock")
    async with server:
        ours = await open_unix(folder / "sock")
        yield ours, await accepted.get()


def _dup(fd: int) -> socket.socket:
    return socket.socket(fileno=os.dup(fd))


@asynccontextmanager
async def pty(folder: Path) -> AsyncIterator[Pair]:
    """Yield the tests' own link; a pty's other side stays open, so it never tells of an end."""
    master, slave = os.openpty()
    for fd in (master, slave):
        os.set_blocking(fd, False)
    tty.setraw(slave)
    yield PtyLink(master), PtyLink(slave)
    os.close(master)
    os.close(slave)


@asynccontextmanager
async def serial_pty(folder: Path) -> AsyncIterator[Pair]:
    """Yield a serial line on a pty's slave, as on the one that QEMU or libvirt made."""
    master, slave = os.openpty()
    yield await open_serial_line(os.ttyname(slave)), DescriptorLine(master)
    os.close(slave)


@asynccontextmanager
async def serial_device(folder: Path) -> AsyncIterator[Pair]:
    """Yield a serial line that pyserial opened, as any tty device."""
    master, slave = os.openpty()
    ours = await asyncio.to_thread(serial_line._open_device, os.ttyname(slave), 9600)
    yield ours, DescriptorLine(master)
    os.close(slave)


@asynccontextmanager
async def serial_unix(folder: Path) -> AsyncIterator[Pair]:
    """Yield a serial line on a Unix socket, as of a serial port of QEMU."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "sock"))
        server.listen()
        ours = await open_serial_line(folder / "sock")
        yield ours, SocketLink(server.accept()[0])


@asynccontextmanager
async def serial_url(folder: Path) -> AsyncIterator[Pair]:
    """Yield a serial line on a TCP port, which pyserial serves from a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        ours = await open_serial_line(url)
        yield ours, SocketLink(server.accept()[0])


Factory = Callable[[Path], AbstractAsyncContextManager[Pair]]
FACTORIES: dict[str, Factory] = {
    "memory": memory,
    "faulty": faulty,
    "unix": unix,
    "pty": pty,
    "serial-pty": serial_pty,
    "serial-device": serial_device,
    "serial-unix": serial_unix,
    "serial-url": serial_url,
}


@pytest.fixture(params=FACTORIES)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Yield each kind of link with its far end."""
    async with asyncio.timeout(30), FACTORIES[request.param](tmp_path) as (ours, theirs):
        yield ours, theirs
        ours.close()
        theirs.close()


async def receive(link: Link, size: int) -> bytes:
    """Receive that many bytes, or less if the line ends."""
    buffer, got = bytearray(4096), b""
    while len(got) < size and (n := await link.receive_into(buffer)):
        got += buffer[:n]
    return got


async def test_bytes_arrive_whole_and_in_order_both_ways(pair: Pair) -> None:
    ours, theirs = pair
    data = os.urandom(300_000)
    for source, sink in ((ours, theirs), (theirs, ours)):
        _, got = await asyncio.gather(source.send(data), receive(sink, len(data)))
        assert got == data


async def test_any_buffer_is_sent_and_nothing_is_nothing(pair: Pair) -> None:
    ours, theirs = pair
    for data in (b"", bytearray(b"ab"), memoryview(b"xcdx")[1:3]):
        await ours.send(data)
    assert await receive(theirs, 4) == b"abcd"


async def test_closing_wakes_a_reader_and_may_be_repeated(pair: Pair) -> None:
    ours, _ = pair
    reading = asyncio.ensure_future(ours.receive_into(bytearray(10)))
    await asyncio.sleep(0)
    ours.close()
    ours.close()
    with suppress(ChannelClosed):
        assert await asyncio.wait_for(reading, 10) == 0
    with pytest.raises(ChannelClosed):
        await ours.send(b"x")


async def test_a_cancelled_read_loses_nothing(pair: Pair) -> None:
    ours, theirs = pair
    reading = asyncio.ensure_future(ours.receive_into(bytearray(10)))
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await theirs.send(b"abc")
    assert await receive(ours, 3) == b"abc"


async def test_the_far_ends_close_is_the_end() -> None:
    ours, theirs = open_pair()
    await theirs.send(b"last")
    theirs.close()
    assert await receive(ours, 99) == b"last"
    ours.close()


async def test_no_listener_is_a_closed_line(tmp_path: Path) -> None:
    with pytest.raises(ChannelClosed, match="no line at"):
        await open_unix(tmp_path / "none")


async def test_a_cut_comes_at_its_byte() -> None:
    ours, theirs = open_pair()
    link = FaultyLink(ours, Faults(cut_receive_at=5))
    await theirs.send(b"0123456789")
    assert await receive(link, 99) == b"01234"
    theirs.close()
    ours, theirs = open_pair()
    link = FaultyLink(ours, Faults(cut_send_at=5))
    with pytest.raises(ChannelClosed):
        await link.send(b"0123456789")
    assert await receive(theirs, 99) == b"01234"
    theirs.close()


async def test_a_silent_cut_says_nothing_until_it_is_closed() -> None:
    ours, theirs = open_pair()
    link = FaultyLink(ours, Faults(cut_receive_at=2, cut_send_at=2, is_silent=True))
    await link.send(b"abcd")
    await theirs.send(b"efgh")
    assert await receive(theirs, 2) == b"ab"
    assert await receive(link, 2) == b"ef"
    reading = asyncio.ensure_future(link.receive_into(bytearray(9)))
    assert not (await asyncio.wait([reading], timeout=0.05))[0]
    link.close()
    assert await reading == 0
    theirs.close()


async def test_garbage_is_inserted_at_its_place() -> None:
    ours, theirs = open_pair()
    link = FaultyLink(ours, Faults(garbage={3: b"<junk>", 0: b"<first>"}))
    await theirs.send(b"abcdef")
    assert await receive(link, 19) == b"<first>abc<junk>def"
    link.close()
    theirs.close()
