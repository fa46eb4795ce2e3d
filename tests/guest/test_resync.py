"""The agent's ear: junk, unknown requests, and the way back after a line cut in any phase."""

import asyncio
import os
import shlex
import signal
import socket
from pathlib import Path

import pytest

from tests.twin import PtyTwin, SocketTwin

NONCE = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
PING = b"N cdef\n"
PONG = b"\x9dHP\0" + b"000000000000cdef" + bytes(4)


def ask(line: socket.socket, data: bytes, end: bytes) -> bytes:
    """Send, and read until `end` has come."""
    line.settimeout(20)
    line.sendall(data)
    got = b""
    while end not in got:
        piece = line.recv(65536)
        assert piece, got
        got += piece
    return got


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n\n\n",
        b"hello world\n",
        b"N\n",
        b"S short 0 \n",
        b"S " + NONCE + b" x \n",
        b"S " + NONCE + b"\n",
        b"s " + NONCE + b" 0 \n",
        b"S $(reboot)________ 0 \n",
        b"X $(reboot)________ 0 true\n",
        bytes(range(1, 256)) * 4 + b"\n",
        b"\0\0\0\n",
        b"half a line\x1b",
    ],
)
async def test_junk_before_a_request_is_ignored(twin: SocketTwin, junk: bytes) -> None:
    with twin.connect() as line:
        got = ask(line, junk + b"\n" + PING, PONG)
        assert got.endswith(PONG)
        assert got.count(b"\x9dH") == 2  # ready, pong


async def test_an_unknown_kind_is_refused_and_the_line_lives(twin: SocketTwin) -> None:
    with twin.connect() as line:
        got = ask(line, b"Z " + OTHER + b" 0 \n" + PING, PONG)
        error = b"\x9dHE\0" + OTHER
        assert error in got
        at = got.index(error) + 24
        assert got[at : at + 2] == (38).to_bytes(2, "big")


@pytest.mark.parametrize("cut", range(0, 24, 3))
async def test_half_a_request_and_a_greeting(twin: SocketTwin, cut: int) -> None:
    request = b"C " + OTHER + b" 0 now\n"
    with twin.connect() as line:
        got = ask(line, request[:cut] + b"\n" + PING, PONG)
        assert got.endswith(PONG)


async def test_the_way_back_from_a_body_that_never_comes(ports: PtyTwin) -> None:
    """On a line that tells nothing of a hang-up, the worker is restarted by the control port."""
    target = await _half_put(ports)
    assert await ports.channel.ping() > 0
    assert target.read_bytes() == b"old"
    assert _unfinished(ports) == []


async def test_what_a_killed_worker_left_unfinished_goes_when_the_next_begins(
    ports: PtyTwin,
) -> None:
    target = await _half_put(ports)
    [folder] = ports.run_folders()
    os.killpg(int((folder / "1.pid").read_text().split()[0]), signal.SIGKILL)
    async with asyncio.timeout(20):
        while _unfinished(ports):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert target.read_bytes() == b"old"
    assert await ports.channel.ping() > 0


async def _half_put(ports: PtyTwin) -> Path:
    """Leave the first work port in the middle of a body; return what it was to replace."""
    target = ports.folder / "file's"
    target.write_bytes(b"old")
    await ports.channel.connect(30)
    await ports.channel.close()
    lease = await ports.pool.lease(["org.hostctl.1"], 1)
    words = f"{shlex.quote(str(target))} '22' '' '' '' ''".encode()
    await lease.link.send(b"\nP " + OTHER + b" 1000 " + words + b"\nhalf of it")
    async with asyncio.timeout(20):
        while not _unfinished(ports):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    lease.release(clean=False)
    return target


def _unfinished(ports: PtyTwin) -> list[Path]:
    return list(ports.folder.glob(".hostctl-*"))
