"""Forwarding from sockets of this host, through the real agent, to sockets of this host."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from hostctl import forward as forward_module
from hostctl.errors import BackendError, ConfigError, PortsBusy
from hostctl.forward import Forward, forwarding
from hostctl_channels.errors import RequestFailed
from hostctl_channels.interface import Channel
from tests.twin import PtyTwin

from .test_dial import answer_at_the_end, listening, speak_and_leave

pytestmark = [pytest.mark.needs("perl")]
ENOUGH_S = 20


class Guest:
    """A guest, and what went wrong with connections to it."""

    def __init__(self, twin: PtyTwin) -> None:
        self.twin = twin
        self.troubles: list[Exception] = []

    async def reach(self) -> Channel:
        return self.twin.channel

    def forward(
        self, local: int | Path, target: object, at_once: int = 2
    ) -> contextlib.AbstractAsyncContextManager[Forward]:
        return forwarding(self.reach, local, str(target), at_once, self.troubles.append)


@pytest.fixture
def guest(guest: PtyTwin) -> Guest:
    """Return the guest of all tests here, with what is kept of its troubles."""
    return Guest(guest)


async def connect(forward: Forward) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(forward.address, Path):
        return await asyncio.open_unix_connection(forward.address)
    return await asyncio.open_connection(*forward.address)


async def ask(forward: Forward, text: bytes) -> bytes:
    """Send, close our half, and read to the end."""
    async with asyncio.timeout(ENOUGH_S):
        reader, writer = await connect(forward)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


async def test_connections_side_by_side_and_half_closes(guest: Guest) -> None:
    async with listening(answer_at_the_end) as target, guest.forward(0, target) as forward:
        texts = [b"x" * n + b"end" for n in (0, 1, 200_000, 7)]  # more than go at once
        answers = await asyncio.gather(*(ask(forward, text) for text in texts))
        assert answers == [b"got %d: end" % len(text) for text in texts]
    assert guest.troubles == []
    with pytest.raises(ConnectionRefusedError):
        await connect(forward)


async def test_a_guest_that_hangs_up_is_heard(guest: Guest) -> None:
    async with listening(speak_and_leave) as target, guest.forward(0, target) as forward:
        async with asyncio.timeout(ENOUGH_S):
            reader, writer = await connect(forward)
            assert await reader.read() == b"bye"
            writer.close()


async def test_paths_on_both_sides(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "ours"
    serving = listening(answer_at_the_end, tmp_path / "theirs")
    async with serving as target, guest.forward(path, target) as forward:
        assert path.stat().st_mode & 0o777 == 0o600
        assert await ask(forward, b"end") == b"got 3: end"
        with pytest.raises(BackendError, match="in use"):
            async with guest.forward(path, target):
                pass
    assert not path.exists()


async def test_a_path_that_a_killed_one_left_is_taken(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with guest.forward(path, 80):
        pass


async def test_a_file_is_never_taken(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(BackendError, match="in use"):
        async with guest.forward(path, 80):
            pass
    assert path.read_text() == "precious"


async def test_nobody_listens_in_the_guest(guest: Guest) -> None:
    async with listening(speak_and_leave) as target:
        pass
    async with guest.forward(0, target) as forward:
        with contextlib.suppress(ConnectionResetError):
            assert await ask(forward, b"hello") == b""
    assert [type(error) for error in guest.troubles] == [RequestFailed]


async def test_one_too_many_is_told(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "WAIT_S", 0.1)
    async with (
        listening(answer_at_the_end) as target,
        guest.forward(0, target, at_once=1) as forward,
    ):
        first = await connect(forward)
        async with asyncio.timeout(ENOUGH_S):
            while not forward.connections:  # noqa: ASYNC110 nobody tells
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionResetError):
            assert await ask(forward, b"hello") == b""
        assert [type(error) for error in guest.troubles] == [PortsBusy]
        first[1].write_eof()
        assert await first[0].read() == b"got 0: "
        first[1].close()


async def test_a_client_that_vanishes_frees_its_ports(guest: Guest) -> None:
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"z" * 1000)
            await writer.drain()

    async with listening(stay) as target, guest.forward(0, target, at_once=1) as forward:
        async with asyncio.timeout(ENOUGH_S):
            for _ in range(2):
                reader, writer = await connect(forward)
                assert await reader.readexactly(10) == b"z" * 10
                writer.transport.abort()
            while forward.connections:  # noqa: ASYNC110 nobody tells
                await asyncio.sleep(0.01)
    assert guest.troubles == []


@pytest.mark.parametrize("target", ["0", "x", "-h:80", "70000", ":80", "relative/path"])
async def test_targets_that_are_none(guest: Guest, target: str) -> None:
    with pytest.raises(ConfigError, match="cannot forward to"):
        async with guest.forward(0, target):
            pass


async def test_a_port_that_is_none(guest: Guest) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        async with guest.forward(70000, 80):
            pass
