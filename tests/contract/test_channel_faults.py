"""Our channel on a bad line, and before a guest that lies: bounded time and memory, one error."""

import asyncio
import io
import os
import socket
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hostctl_channels import agent_channel, process
from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.errors import (
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    HostctlError,
    OutputTooLarge,
    RemoteProtocolError,
)
from hostctl_channels.interface import Command
from hostctl_channels.links.faulty import Faults, FaultyLink
from hostctl_channels.links.interface import Link
from hostctl_channels.links.stream import SocketLink
from hostctl_channels.ports import WORK, PortPool
from tests.twin import Dial, SocketTwin, StillPulse

LIMIT_S = 30


@asynccontextmanager
async def on_bad_line(*faults: Faults) -> AsyncIterator[tuple[AgentChannel, Path]]:
    """Yield a channel whose first connections have these faults, and the later ones none."""
    left = list(faults)
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = SocketTwin("dash", Path(name))
        twin.feels_pipe = False

        async def open_(path: Path) -> Link:
            link = await twin.open(path)
            return FaultyLink(link, left.pop(0)) if left else link

        pool = PortPool({WORK[0]: Dial(open_, twin.folder / "1")}, twin.folder)
        channel = AgentChannel(pool, twin.pulse)
        async with asyncio.timeout(LIMIT_S):
            yield channel, twin.folder
        await channel.close()
        await twin.close()


async def everything(channel: AgentChannel, folder: Path) -> None:
    """Do some of all, and see that it is right."""
    data, path = os.urandom(70_000), os.fsencode(folder / "file")
    assert (await channel.exec(Command.of("cat"), input=data)).stdout == data
    await channel.put(io.BytesIO(data), len(data), path)
    sink = io.BytesIO()
    await channel.get(path, sink)
    assert sink.getvalue() == data


@pytest.mark.parametrize(
    "faults",
    [Faults(piece_bytes=1000), Faults(delay_s=0.001), Faults(piece_bytes=333, delay_s=0.0002)],
    ids=["short", "slow", "both"],
)
async def test_short_reads_and_delays_change_nothing(faults: Faults) -> None:
    async with on_bad_line(faults) as (channel, folder):
        await everything(channel, folder)


async def test_single_bytes_change_nothing() -> None:
    async with on_bad_line(Faults(piece_bytes=1)) as (channel, _):
        result = await channel.exec(Command.of("sh", "-c", "printf out; printf err >&2; exit 3"))
        assert (result.exit.code, result.stdout, result.stderr) == (3, b"out", b"err")


@pytest.mark.parametrize("at", [0, 10, 24, 100, 140, 160, 500, 40_000])
@pytest.mark.parametrize("direction", ["receive", "send"])
async def test_a_cut_is_an_error_or_no_matter_and_the_next_request_works(
    at: int, direction: str
) -> None:
    faults = Faults(cut_receive_at=at) if direction == "receive" else Faults(cut_send_at=at)
    async with on_bad_line(faults) as (channel, folder):
        with_luck: list[HostctlError] = []
        try:
            await everything(channel, folder)  # a cut before the greeting's end is simply repaired
        except ChannelError as err:
            with_luck.append(err)
        assert len(with_luck) <= 1
        await everything(channel, folder)


@pytest.mark.parametrize("at", [150, 180, 300, 40_000])
async def test_a_silent_cut_ends_at_the_deadline(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_channel, "_STALL_S", 0.5)
    async with on_bad_line(Faults(cut_receive_at=at, is_silent=True)) as (channel, folder):
        path = folder / "file"
        path.write_bytes(bytes(100_000))
        await channel.ping()
        with pytest.raises(ChannelTimeout):
            await channel.get(os.fsencode(path), io.BytesIO())
        assert await channel.ping() > 0


@pytest.mark.parametrize("at", [0, 20, 150, 200])
async def test_garbage_is_refused_or_skipped(at: int) -> None:
    faults = Faults(garbage={at: os.urandom(100)})
    async with on_bad_line(faults) as (channel, folder):
        try:
            for _ in range(10):
                await channel.ping()
        except (RemoteProtocolError, ChannelError):
            pass
        await everything(channel, folder)


async def test_a_cut_in_time_is_a_reset() -> None:
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = SocketTwin("dash", Path(name))
        twin.feels_pipe = False
        task = asyncio.ensure_future(twin.channel.exec(Command.of("sleep", "2")))
        await asyncio.sleep(0.5)
        twin.pulse.now += 1
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(ChannelReset):
                await task
        assert await twin.channel.ping() > 0
        await twin.channel.close()
        await twin.close()


# --- a guest that lies ----------------------------------------------------------------------------

Lie = Callable[[bytes], AsyncIterator[bytes]]
"""What a guest says after a request with a nonce."""


def frame(kind: bytes, nonce: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"\x9dH" + kind + b"\0" + nonce + size.to_bytes(4, "big") + body


class LyingGuest:
    """Greets as it should, then lies."""

    def __init__(self, lie: Lie) -> None:
        self._lie = lie
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, path: Path) -> Link:
        ours, theirs = socket.socketpair()
        self._tasks.append(asyncio.create_task(self._serve(theirs)))
        return SocketLink(ours)

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while line := await reader.readline():
                words = line.split(b" ")
                if words[0] == b"H":
                    writer.write(frame(b"H", words[1], b"\x01fullblock stat"))
                elif len(words) > 2:
                    async for piece in self._lie(words[1]):
                        writer.write(piece)
                        await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def junk(nonce: bytes) -> AsyncIterator[bytes]:
    while True:
        yield os.urandom(65536)


async def long_frame(nonce: bytes) -> AsyncIterator[bytes]:
    yield frame(b"E", nonce, b"x" * 100, length=0xFFFFFFFF)


async def wrong_nonce(nonce: bytes) -> AsyncIterator[bytes]:
    yield frame(b"D", nonce[::-1] if nonce != nonce[::-1] else b"f" * 16)


async def wrong_answer(nonce: bytes) -> AsyncIterator[bytes]:
    yield frame(b"P", nonce) + frame(b"X", nonce, bytes(15))


async def endless_starts(nonce: bytes) -> AsyncIterator[bytes]:
    while True:
        yield frame(b"S", nonce) * 1000


async def endless_body(nonce: bytes) -> AsyncIterator[bytes]:
    yield frame(b"B", nonce)
    while True:
        yield bytes(65536)


async def half_frames(nonce: bytes) -> AsyncIterator[bytes]:
    yield frame(b"E", nonce, b"\0\5abc", length=900)
    await asyncio.sleep(LIMIT_S)


async def nothing(nonce: bytes) -> AsyncIterator[bytes]:
    await asyncio.sleep(LIMIT_S)
    yield b""


LIES = [
    junk,
    long_frame,
    wrong_nonce,
    wrong_answer,
    endless_starts,
    endless_body,
    half_frames,
    nothing,
]


class Nowhere(io.BytesIO):
    """Takes everything and keeps nothing."""

    def write(self, data: object, /) -> int:
        return 0


@pytest.mark.parametrize("request_", ["get", "put", "exec", "clock"])
@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_costs_bounded_time_and_memory(
    lie: Lie, request_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_channel, "_STALL_S", 0.5)
    monkeypatch.setattr(agent_channel, "_SHORT_S", 0.5)
    monkeypatch.setattr(process, "_GRACE_S", 1.0)
    monkeypatch.setattr(process, "_END_S", 0.5)
    guest = LyingGuest(lie)
    pool = PortPool({WORK[0]: Dial(guest.open, tmp_path / "1")}, tmp_path)
    channel = AgentChannel(pool, StillPulse())
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: channel.get(b"/f", Nowhere(), max_bytes=8 << 20),
        "put": lambda: channel.put(io.BytesIO(bytes(3 << 20)), 3 << 20, b"/f"),
        "exec": lambda: channel.exec(Command.of("x", timeout_s=0.01), max_output_bytes=1 << 20),
        "clock": lambda: channel.feed_entropy(b"x" * 100),
    }
    tracemalloc.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises((HostctlError, OutputTooLarge)):
                await requests[request_]()
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
        await guest.close()
        await channel.close()


# --- a guest that is slow -------------------------------------------------------------------------


class TwiceGreeted(LyingGuest):
    """Answers each greeting twice, as one that was greeted twice; the second time in halves."""

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        hello = b""
        try:
            while line := await reader.readline():
                words = line.split(b" ")
                if words[0] == b"H":
                    hello = frame(b"H", words[1], b"\x01agent=1 fullblock stat date")
                    writer.write(hello + hello[:20])
                elif words[0] == b"C":
                    writer.write(hello[20:] + frame(b"D", words[1]))
        finally:
            writer.close()


async def test_a_second_answer_to_a_greeting_may_come_in_pieces(tmp_path: Path) -> None:
    guest = TwiceGreeted(junk)
    channel = AgentChannel(
        PortPool({WORK[0]: Dial(guest.open, tmp_path / "1")}, tmp_path), StillPulse()
    )
    async with asyncio.timeout(LIMIT_S):
        await channel.set_clock(0)
    await channel.close()
    await guest.close()
