"""The login console on a line that talks, refuses, hangs and lies."""

import asyncio
import io
import logging
import os
import random
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hostctl_channels import console
from hostctl_channels.console import LoginFoothold, open_console
from hostctl_channels.errors import ChannelTimeout, HostctlError, LoginFailed
from hostctl_channels.interface import Buffer, Command
from hostctl_channels.login import Login
from hostctl_channels.ports import SERIAL, PortPool
from hostctl_channels.staged import StagedChannel
from tests.serial_twin import PASSWORD, USER, GettyOnTty, Relay
from tests.twin import EACH_SHELL, Dial, StillPulse

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def twin(shell: str) -> AsyncIterator[GettyOnTty]:
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = GettyOnTty(shell, Path(name))
        yield twin
        await twin.close()


def vanish(channel: StagedChannel) -> None:
    """Let go of the line as a killed process does: without a word."""
    foothold = channel._foothold
    assert isinstance(foothold, LoginFoothold)
    foothold._hang_up(clean=False)


async def works(channel: StagedChannel) -> None:
    async with asyncio.timeout(60):
        assert (await channel.exec(Command.of("echo", "on"))).stdout == b"on\n"


@pytest.mark.parametrize("shell", EACH_SHELL, indirect=True)
async def test_any_login_shell_will_do(twin: GettyOnTty) -> None:
    await twin.channel.connect(30)
    data = bytes(range(256)) * 30
    assert (await twin.channel.exec(Command.of("cat"), input=data)).stdout == data


@pytest.mark.needs("agetty")
async def test_the_real_getty_and_login(tmp_path: Path) -> None:
    """Debian's agetty and login, which here let root in without a password."""
    if os.geteuid() != 0:
        pytest.skip("needs root: login is for root only")
    relay = Relay(raw_guest=False)
    name = relay.guest.removeprefix("/dev/")
    argv = ["/sbin/agetty", "-L", "--noclear", "--autologin", "root", "115200", name, "vt100"]
    with subprocess.Popen(argv, start_new_session=True) as getty:
        channel = open_console(relay.host, None, lock_dir=tmp_path)
        await channel.connect(30)
        assert (await channel.exec(Command.of("id", "-un"))).stdout == b"root\n"
        await channel.close()  # logs out, which ends them
        getty.wait(20)
    relay.close()


async def test_a_wrong_password_is_tried_once_and_never_logged(
    twin: GettyOnTty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard = bytearray()

    def listen(data: bytes) -> bytes:
        heard.extend(data)
        return data

    twin.relay.to_guest = listen
    channel = twin.new_channel(Login(USER, "wr0ng"))
    with pytest.raises(LoginFailed) as caught:
        await channel.connect(30)
    assert heard.count(b"wr0ng") == 1
    assert "wr0ng" not in caplog.text + str(caught.value)
    await channel.close()
    await twin.channel.connect(30)
    assert PASSWORD not in caplog.text
    await works(twin.channel)


async def test_a_login_is_wanted(twin: GettyOnTty) -> None:
    for login in (None, Login(USER)):
        channel = twin.new_channel(login)
        with pytest.raises(LoginFailed, match="none was given"):
            await channel.connect(30)
        await channel.close()
        twin.relay.say(b"")


async def test_a_shell_left_open_needs_no_login(twin: GettyOnTty) -> None:
    await twin.channel.connect(30)
    vanish(twin.channel)
    other = twin.new_channel(None)
    await other.connect(30)
    await works(other)
    await other.close()


async def test_what_a_killed_process_left_running_is_ended(twin: GettyOnTty) -> None:
    await twin.channel.connect(30)
    task = asyncio.ensure_future(twin.channel.exec(Command.of("sleep", "1000")))
    await asyncio.sleep(1)
    vanish(twin.channel)
    with pytest.raises(HostctlError):
        await task
    other = twin.new_channel(Login(USER, PASSWORD))
    await other.connect(60)
    await works(other)
    await other.close()


async def test_closing_logs_out(twin: GettyOnTty) -> None:
    await works(twin.channel)
    await twin.channel.close()
    channel = twin.new_channel(None)
    with pytest.raises(LoginFailed):
        await channel.connect(30)
    await channel.close()


def chatter(every: int) -> Callable[[bytes], bytes]:
    """Return a filter that puts a kernel's message after so many bytes, wherever that is."""
    seen = 0

    def talk(data: bytes) -> bytes:
        nonlocal seen
        seen += len(data)
        if seen < every:
            return data
        seen = 0
        half = len(data) // 2
        return data[:half] + b"\r\n[   12.345678] eth0: link is up\r\n" + data[half:]

    return talk


@pytest.mark.parametrize("every", [3000, 20_000])
async def test_kernel_messages_anywhere_do_no_harm(twin: GettyOnTty, every: int) -> None:
    await twin.channel.connect(30)
    twin.relay.to_host = chatter(every)
    data, path = os.urandom(20_000), os.fsencode(twin.folder / "file")
    await twin.channel.put(io.BytesIO(data), len(data), path)
    assert Path(os.fsdecode(path)).read_bytes() == data
    sink = io.BytesIO()
    try:
        await twin.channel.get(path, sink)
    except HostctlError:
        assert every == 3000  # each slice of 12 KiB is hit, each time: told, not hung
    else:
        assert sink.getvalue() == data
    twin.relay.to_host = bytes
    await works(twin.channel)


async def test_cancelling_is_ctrl_c(twin: GettyOnTty) -> None:
    await twin.channel.connect(30)
    command = Command.of("sh", "-c", "sleep 61; sleep 62")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await twin.channel.exec(command)
    await works(twin.channel)
    assert not [line for line in twin.family.lines() if "sleep 6" in line]


async def test_a_timeout_is_ctrl_c_then_ctrl_backslash(
    twin: GettyOnTty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_END_S", 0.5)
    await twin.channel.connect(30)
    for traps, signal in (("", 2), ("trap '' INT;", 3)):
        line = f"{traps} while :; do sleep 0.1; done"
        result = await twin.channel.exec(Command.of("sh", "-c", line, timeout_s=0.5))
        assert (result.exit.timed_out, result.exit.signal) == (True, signal)
    stubborn = Command.of("sh", "-c", "trap '' INT QUIT; sleep 3", timeout_s=0.2)
    with pytest.raises(ChannelTimeout, match="heeds neither"):
        await twin.channel.exec(stubborn)
    await asyncio.sleep(3)
    await works(twin.channel)


async def test_other_tools_do_as_well(twin: GettyOnTty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_TOOLS", (b"od", b"md5sum"))
    await twin.channel.connect(30)
    data = bytes(range(256)) * 3
    assert (await twin.channel.exec(Command.of("cat"), input=data)).stdout == data


class Flood:
    """A guest that says junk for ever, as fast as it can."""

    def __init__(self, junk: bytes) -> None:
        self._junk = junk

    async def receive_into(self, buffer: bytearray) -> int:
        await asyncio.sleep(0)
        size = min(len(buffer), len(self._junk))
        buffer[:size] = self._junk[:size]
        return size

    async def send(self, data: Buffer) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"x" * 16384, id="one line"),
        pytest.param(random.Random(1).randbytes(16384), id="noise"),
        pytest.param(b"a\n" * 8000, id="many lines"),
        pytest.param(b"login: ", id="login"),
    ],
)
async def test_a_flood_costs_bounded_time_and_memory(junk: bytes, tmp_path: Path) -> None:
    async def dial(_: Path) -> Flood:
        return Flood(junk)

    pool = PortPool({SERIAL: Dial(dial, tmp_path)}, tmp_path)
    foothold = LoginFoothold(pool, Login("root", "x"), StillPulse())
    channel = StagedChannel(foothold)
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(HostctlError):
            await channel.connect(2)
        assert time.monotonic() - begin < 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
        await channel.close()


async def test_a_silent_line_ends_in_time(twin: GettyOnTty) -> None:
    twin.relay.to_host = lambda data: b""
    channel = open_console(twin.relay.host, Login(USER), lock_dir=twin.locks)
    with pytest.raises(ChannelTimeout, match="said last: nothing"):
        await channel.connect(2)
    await channel.close()
