"""The guest agent's channel before an agent that lies: one error, in bounded time and memory."""

import asyncio
import time
import tracemalloc
from pathlib import Path

import pytest

from hostctl_channels.errors import (
    ChannelError,
    ChannelTimeout,
    HostctlError,
    RemoteProtocolError,
)
from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import GUEST_AGENT, PortPool
from hostctl_channels.qga import QgaChannel, SocketExchange
from hostctl_channels.qga.agent import Agent
from hostctl_channels.qga.files import _pieces, _Place
from tests.twin import StillPulse


class Liar:
    """An Exchange to an agent that says what it is told to say."""

    max_request_bytes = max_reply_bytes = 1 << 20
    is_warm = False

    def __init__(self) -> None:
        self.answer = b""

    async def ask(self, request: object, timeout_s: float) -> bytes:
        return self.answer

    async def close(self) -> None:
        pass


@pytest.fixture
def liar() -> Liar:
    return Liar()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"return": {"version": "1", "supported_commands": 3}}',
        b'{"return": {"version": "1", "supported_commands": [3]}}',
        b'{"return": {"version": [], "supported_commands": []}}',
        b"[]",
    ],
)
async def test_lies_of_itself_are_one_error(liar: Liar, answer: bytes) -> None:
    liar.answer = answer
    with pytest.raises(RemoteProtocolError):
        await QgaChannel(liar, StillPulse()).connect(1)


@pytest.mark.parametrize(
    "value",
    [
        b'{"exited": 1}',
        b'{"exited": true}',
        b'{"exited": true, "exitcode": 3, "signal": 9}',
        b'{"exited": true, "exitcode": 300}',
        b'{"exited": true, "exitcode": 0, "out-data": "!"}',
        b'{"exited": true, "exitcode": 0, "out-data": 3}',
    ],
)
async def test_lies_of_a_command_are_one_error(liar: Liar, value: bytes) -> None:
    liar.answer = b'{"return": %s}' % value
    with pytest.raises(RemoteProtocolError):
        await Agent(liar).status(3)


async def test_lies_of_a_file_are_one_error(liar: Liar) -> None:
    for answer in (b'{"return": {"count": 3, "eof": true, "buf-b64": "AAAA"}}', b'{"return": 3}'):
        liar.answer = answer
        with pytest.raises(RemoteProtocolError):
            await Agent(liar).read(1, 2, b"/x")
    for count in (b"0", b"2", b"true"):
        liar.answer = b'{"return": {"count": %s}}' % count
        with pytest.raises(RemoteProtocolError):
            await Agent(liar).write(1, memoryview(b"x"), b"/x")


async def test_a_read_of_nothing_is_no_endless_loop(liar: Liar) -> None:
    liar.answer = b'{"return": {"count": 0, "eof": false, "buf-b64": ""}}'
    place = _Place(Agent(liar), StillPulse(), b"/x", "get")
    with pytest.raises(RemoteProtocolError, match="says there is more"):
        _ = [piece async for piece in _pieces(place, 1)]


@pytest.mark.parametrize(
    ("talk", "error"),
    [
        (b"x" * 65536, HostctlError),
        (b"\xff" * 65536, HostctlError),
        (b'\xff{"return": 7}\n' * 4000, HostctlError),
        (b"", ChannelTimeout),
        (None, ChannelError),
    ],
)
async def test_a_line_of_noise_costs_bounded_time_and_memory(
    tmp_path: Path, talk: bytes | None, error: type[Exception]
) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while talk:
                writer.write(talk)
                await writer.drain()
            if talk is not None:
                await asyncio.sleep(5)
        except ConnectionError:
            pass
        finally:
            writer.close()

    path = tmp_path / "s"
    async with await asyncio.start_unix_server(serve, path):
        pulse = StillPulse()
        channel = QgaChannel(
            SocketExchange(PortPool({GUEST_AGENT: UnixEndpoint(path)}, tmp_path), pulse), pulse
        )
        tracemalloc.start()
        begin = time.monotonic()
        with pytest.raises(error):
            await channel.connect(1)
        assert time.monotonic() - begin < 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()
        await channel.close()
