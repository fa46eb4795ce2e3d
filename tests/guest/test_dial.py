"""Connections to sockets of this host, by the real agent and every tool here that makes them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hostctl_channels.dial import TOOLS, GuestSocket, Target, dial
from hostctl_channels.errors import LocalProtocolError, Refused, RequestFailed
from hostctl_channels.interface import Command
from tests.twin import PtyTwin

ENOUGH_S = 20
FOUND_AS = {"netcat": "nc"}
CLOSES_HALVES = ("perl", "python3")  # those that tell of the guest's half-close
PATHS = ("perl", "python3", "socat", "netcat")  # those that know sockets with a path

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def tools(*names: str) -> pytest.MarkDecorator:
    found = [pytest.param(n, marks=pytest.mark.needs(FOUND_AS.get(n, n))) for n in names]
    return pytest.mark.parametrize("tool", found)


@asynccontextmanager
async def dialled(twin: PtyTwin, tool: str, target: Target) -> AsyncIterator[GuestSocket]:
    async with asyncio.timeout(ENOUGH_S), dial(twin.channel, target, (tool,)) as found:
        yield found


@asynccontextmanager
async def listening(serve: Serve, path: Path | None = None) -> AsyncIterator[Target]:
    """Yield where `serve` takes connections."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    if path is None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        target = Target(server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(one, path)
        target = Target(path=str(path))
    try:
        yield target
    finally:
        server.close()


async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait for the other's half-close, and longer than some tools would, then answer."""
    text = await reader.read()
    await asyncio.sleep(0.7)
    writer.write(b"got %d: " % len(text) + text[-3:])


async def speak_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"bye")


async def all_of(socket: GuestSocket) -> bytes:
    text = b""
    while (data := await socket.read()) is not None:
        text += data
    return text


@tools(*TOOLS)
async def test_our_half_close_arrives_and_the_answer_comes(guest: PtyTwin, tool: str) -> None:
    async with listening(answer_at_the_end) as target, dialled(guest, tool, target) as socket:
        await socket.write(b"x" * 100_000 + b"end")
        await socket.write_eof()
        assert await all_of(socket) == b"got 100003: end"
        await socket.wait_closed()
    assert (await guest.channel.exec(Command.of("true"))).exit.ok


@tools(*PATHS)
async def test_a_socket_with_a_path(guest: PtyTwin, tool: str, tmp_path: Path) -> None:
    serving = listening(answer_at_the_end, tmp_path / "it's")
    async with serving as target, dialled(guest, tool, target) as socket:
        await socket.write(b"end")
        await socket.write_eof()
        assert await all_of(socket) == b"got 3: end"


@tools("perl", "python3", "busybox", "socat")  # OpenBSD's netcat waits for us
async def test_a_guest_that_hangs_up_ends_it(guest: PtyTwin, tool: str) -> None:
    async with listening(speak_and_leave) as target, dialled(guest, tool, target) as socket:
        assert await all_of(socket) == b"bye"


@tools(*CLOSES_HALVES)
async def test_the_guests_half_close_leaves_ours_open(guest: PtyTwin, tool: str) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"y" * 50_000)
        writer.write_eof()
        heard.set_result(await reader.read())

    async with listening(serve) as target, dialled(guest, tool, target) as socket:
        assert await all_of(socket) == b"y" * 50_000
        assert socket.is_open
        await socket.write(b"after that")
        await socket.write_eof()
        assert await heard == b"after that"
        await socket.wait_closed()


@tools(*TOOLS)
async def test_nobody_listens(guest: PtyTwin, tool: str) -> None:
    async with listening(speak_and_leave) as target:
        pass
    with pytest.raises(RequestFailed, match=f"cannot connect to {target} in the guest: .*refused"):
        async with dialled(guest, tool, target) as socket:
            await socket.read()


async def test_a_guest_without_tools_says_so(guest: PtyTwin) -> None:
    with pytest.raises(Refused, match="no tool for sockets with a path"):
        async with dialled(guest, "busybox", Target(path="/run/x")) as socket:
            await socket.read()


@pytest.mark.parametrize("bad", [{"port": 0}, {"port": 1, "host": "-x"}, {"path": "x"}])
def test_targets_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        Target(**bad)  # type: ignore[arg-type]  # what a caller may do
