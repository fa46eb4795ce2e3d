"""Our agent on a serial line that loses bytes, is talked over, and is shared."""

import asyncio
import io
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl_channels import serial_agent
from hostctl_channels.errors import (
    ChannelClosed,
    ChannelError,
    HostctlError,
    LocalProtocolError,
    RemoteProtocolError,
)
from hostctl_channels.interface import Capability, Command
from hostctl_channels.links.serial_line import open_serial_line
from hostctl_channels.serial_agent import open_serial
from tests.serial_twin import AgentOnTty, Relay
from tests.twin import EACH_SHELL

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def twin(shell: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgentOnTty]:
    """Yield a guest that answers; from then on a loss is waited for a second, not fifteen."""
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = AgentOnTty(shell, Path(name))
        try:
            await twin.channel.connect(30)
            monkeypatch.setattr(serial_agent, "_SLACK_S", 0.5)
            yield twin
        finally:
            await twin.close()


class Once:
    """Damages what passes, once, after so many bytes."""

    def __init__(self, at: int, *, lose: int = 0, insert: bytes = b"", flip: bool = False) -> None:
        self._left = at
        self._change = (lose, insert, flip)
        self.is_done = False

    def __call__(self, data: bytes) -> bytes:
        if self.is_done:
            return data
        if self._left >= len(data):
            self._left -= len(data)
            return data
        self.is_done = True
        lose, insert, flip = self._change
        before, after = data[: self._left], data[self._left :]
        if flip:
            after = bytes([after[0] ^ 1]) + after[1:]
        return before + insert + after[lose:]


DAMAGES = {
    "a byte lost": {"lose": 1},
    "many lost": {"lose": 500},
    "a bit": {"flip": True},
    "a kernel message": {"insert": b"\r\n[    3.141592] random: crng init done\r\n"},
}


@pytest.mark.parametrize("shell", EACH_SHELL, indirect=True)
async def test_all_shells_serve_a_tty_that_was_cooked(twin: AgentOnTty) -> None:
    """The agent itself makes it raw: every byte passes, both ways."""
    data = bytes(range(256)) * 300
    path = os.fsencode(twin.folder / "file")
    await twin.channel.put(io.BytesIO(data), len(data), path)
    sink = io.BytesIO()
    await twin.channel.get(path, sink)
    assert sink.getvalue() == data
    result = await twin.channel.exec(Command.of("cat"), input=data)
    assert result.stdout == data


@pytest.mark.needs("busybox")
@pytest.mark.parametrize("raw", [True, False])
async def test_without_stty_the_tty_must_be_raw_or_damage_is_told(
    raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_agent, "_SLACK_S", 0.5)
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = AgentOnTty("dash", Path(name), raw=raw, lacks="stty")
        data, path = bytes(range(256)) * 8, os.fsencode(twin.folder / "file")
        try:
            await twin.channel.connect(5)
            await twin.channel.put(io.BytesIO(data), len(data), path)
        except HostctlError:
            assert not raw
            assert not os.path.exists(path)
        else:
            assert Path(os.fsdecode(path)).read_bytes() == data
        await twin.close()


@pytest.mark.needs("busybox")
async def test_without_digests_it_works_and_says_so() -> None:
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = AgentOnTty("dash", Path(name), lacks="sha256sum")
        await twin.channel.connect(30)
        assert Capability.SHA256 not in twin.channel.capabilities
        data, path = bytes(range(256)) * 300, os.fsencode(twin.folder / "file")
        info = await twin.channel.put(io.BytesIO(data), len(data), path)
        assert info.sha256 is None
        sink = io.BytesIO()
        await twin.channel.get(path, sink)
        assert sink.getvalue() == data
        await twin.close()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("at", [200, 40_000])
async def test_damage_in_a_put_is_repaired_or_told(twin: AgentOnTty, damage: str, at: int) -> None:
    data, path = os.urandom(70_000), os.fsencode(twin.folder / "file")
    twin.relay.to_guest = Once(at, **DAMAGES[damage])  # type: ignore[arg-type]
    try:
        await twin.channel.put(io.BytesIO(data), len(data), path)
    except HostctlError:
        assert not os.path.exists(path)
    else:
        assert Path(os.fsdecode(path)).read_bytes() == data
    await works(twin)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("at", [100, 200_000])
async def test_damage_in_a_get_is_repaired_or_told(twin: AgentOnTty, damage: str, at: int) -> None:
    data, path = os.urandom(300_000), twin.folder / "file"
    path.write_bytes(data)
    twin.relay.to_host = Once(at, **DAMAGES[damage])  # type: ignore[arg-type]
    sink = io.BytesIO()
    try:
        await twin.channel.get(os.fsencode(path), sink)
    except HostctlError:
        pass
    else:
        assert sink.getvalue() == data
    await works(twin)


@pytest.mark.parametrize("at", range(0, 900, 150))
@pytest.mark.parametrize("direction", ["to_guest", "to_host"])
async def test_a_garbled_command_is_never_another_one(
    twin: AgentOnTty, at: int, direction: str
) -> None:
    log = twin.folder / "log"
    words = "a" * 300
    setattr(twin.relay, direction, Once(at, lose=1))
    command = Command.of("sh", "-c", f'echo "$1" >>{log}; echo said', "sh", words, timeout_s=2)
    try:
        result = await twin.channel.exec(command)
    except (ChannelError, RemoteProtocolError):
        assert not log.exists() or log.read_text() == words + "\n"
    else:
        assert (result.exit.code, result.stdout) == (0, b"said\n")
        assert log.read_text() == words + "\n"
    await works(twin)


async def test_junk_between_requests_is_dropped(twin: AgentOnTty) -> None:
    await twin.channel.ping()
    twin.relay.say(b"\r\nDebian GNU/Linux 12 tiny ttyS1\r\n\r\ntiny login: ")
    await asyncio.sleep(1.5)  # the port is given back meanwhile, and greeted anew
    await works(twin)


async def test_a_cancelled_put_leaves_nothing_and_the_line_lives(twin: AgentOnTty) -> None:
    data, path = os.urandom(3 << 20), os.fsencode(twin.folder / "sub" / "file")
    (twin.folder / "sub").mkdir()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await twin.channel.put(io.BytesIO(data), len(data), path)
    await works(twin)
    assert os.listdir(os.path.dirname(path)) == []


async def test_a_guest_that_is_only_slow_is_reached_and_not_flooded(twin: AgentOnTty) -> None:
    """Its answers come later than a first greeting is waited for."""
    await twin.channel.close()
    sent, late = 0, 2

    def count(data: bytes) -> bytes:
        nonlocal sent
        sent += len(data)
        return data

    def delay(data: bytes) -> bytes:
        nonlocal late
        late -= 1
        if late >= 0:
            time.sleep(1.5)
        return data

    twin.relay.to_guest, twin.relay.to_host = count, delay
    await twin.channel.connect(20)
    assert sent < 4000


async def test_whoever_follows_a_holder_killed_in_a_body_waits_seconds(
    twin: AgentOnTty,
) -> None:
    await twin.channel.close()
    path = twin.folder / "file"
    line = await open_serial_line(twin.relay.host)
    await line.send(f"P 0123456789abcdef 50000 {path} 66 '' '' '' ''\nhalf of it".encode())
    line.close()
    (twin.locks / "serial.1.body").write_text("50000\n")
    async with asyncio.timeout(5):
        await works(twin)
    assert not path.exists()


async def test_two_processes_take_turns(twin: AgentOnTty) -> None:
    other = twin.new_channel()
    commands = [Command.of("echo", str(n)) for n in range(3)]
    found = await asyncio.gather(
        *(channel.exec(command) for command in commands for channel in (twin.channel, other))
    )
    assert [each.stdout for each in found] == [b"0\n", b"0\n", b"1\n", b"1\n", b"2\n", b"2\n"]
    await other.close()


async def test_closing_leaves_no_files(twin: AgentOnTty) -> None:
    await works(twin)
    folder = Path(os.fsdecode(twin.channel._foothold.folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    await twin.channel.close()
    assert not folder.exists()


async def test_a_silent_line_ends_in_time(tmp_path: Path) -> None:
    relay = Relay()
    channel = open_serial(relay.host, lock_dir=tmp_path)
    with pytest.raises(TimeoutError):
        await channel.connect(1)
    await channel.close()
    relay.close()


async def test_a_taken_or_missing_line_is_told(tmp_path: Path) -> None:
    relay = Relay()
    line = await open_serial_line(relay.host)
    with pytest.raises(ChannelClosed) as caught:
        await open_serial_line(relay.host)
    assert "fuser" in (caught.value.hint or "")
    line.close()
    relay.close()
    with pytest.raises(ChannelClosed, match="no line at"):
        await open_serial_line(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(LocalProtocolError, match="no serial line"):
        await open_serial_line(tmp_path / "file")


async def test_a_missing_pyserial_is_told_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(LocalProtocolError) as caught:
        await open_serial_line("rfc2217://127.0.0.1:1")
    assert caught.value.hint == "pip install 'hostctl[serial]'"


async def works(twin: AgentOnTty) -> None:
    """See that the next request does, on a line that is well again."""
    twin.relay.to_guest = twin.relay.to_host = bytes
    async with asyncio.timeout(60):
        assert (await twin.channel.exec(Command.of("echo", "on"))).stdout == b"on\n"
