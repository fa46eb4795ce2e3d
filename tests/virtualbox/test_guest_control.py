"""Guest control where it is hard: restores, wrong passwords, crashes, guests without Additions."""

import asyncio
import io
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.virtualbox.client import borrow, give_back
from hostctl.backends.virtualbox.guest import BridgedControl
from hostctl_channels.errors import (
    ChannelClosed,
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    LoginFailed,
    Refused,
)
from hostctl_channels.interface import Command
from hostctl_channels.login import Login
from hostctl_channels.vbox import VboxChannel
from tests.twin import StillPulse

from .machine import LabMachine
from .test_channel import READY_S, guest_control, place_of, uart

RESTORES = 10
pytestmark = [pytest.mark.nightly, pytest.mark.needs("virtualbox-lab"), pytest.mark.timeout(300)]


@pytest.fixture
async def channel(ready: LabMachine) -> AsyncIterator[VboxChannel]:
    channel = guest_control(ready)
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@pytest.fixture
def fresh(booted: LabMachine) -> LabMachine:
    """Return the machine as it was before its services started, with these started."""
    booted.restore()
    return booted


async def test_a_wrong_password_is_refused_once_and_named(ready: LabMachine) -> None:
    wrong = "not-the-password"
    channel = guest_control(ready, password=wrong)
    with pytest.raises(LoginFailed) as caught:
        await channel.exec(Command.of("true"))
    assert wrong not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    await channel.close()


async def test_the_password_is_in_no_argument_list(
    channel: VboxChannel, ready: LabMachine, caplog: pytest.LogCaptureFixture
) -> None:
    await channel.exec(Command.of("true"))
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"password" in line and b"secret" in line for line in lines)
    assert "secret" not in caplog.text


async def test_without_a_login_it_is_refused_with_a_hint(ready: LabMachine) -> None:
    channel = VboxChannel(BridgedControl(place_of(ready.lab), ready.name), None, StillPulse())
    with pytest.raises(Refused, match="wants a user") as caught:
        await channel.ping()
    assert "600" in (caught.value.hint or "")


async def test_another_user_runs_as_that_user(ready: LabMachine) -> None:
    channel = guest_control(ready, user="user")
    result = await channel.exec(Command.of("id", "-un"))
    assert result.stdout == b"user\n"
    await channel.close()


async def test_a_fifo_is_refused_before_it_hangs_the_service(channel: VboxChannel) -> None:
    (await channel.exec(Command.of("mkfifo", "/tmp/fifo"))).check()
    with pytest.raises(OSError, match="no file"):
        await channel.get(b"/tmp/fifo", io.BytesIO())
    (await channel.exec(Command.of("rm", "/tmp/fifo"))).check()


async def test_a_file_of_many_calls_goes_both_ways(channel: VboxChannel) -> None:
    data, sink = os.urandom(3_000_001), io.BytesIO()
    seen: list[int] = []
    await channel.put(io.BytesIO(data), len(data), b"/tmp/many", progress=seen.append)
    await channel.get(b"/tmp/many", sink)
    assert sink.getvalue() == data
    assert seen[-1] == len(data)
    assert len(seen) > 3


async def test_a_file_beyond_the_limit_is_not_taken(channel: VboxChannel) -> None:
    await channel.put(io.BytesIO(bytes(2000)), 2000, b"/tmp/large")
    with pytest.raises(OSError, match="larger than 1000 bytes"):
        await channel.get(b"/tmp/large", io.BytesIO(), max_bytes=1000)


async def test_output_that_nobody_reads_does_not_fill_our_memory(channel: VboxChannel) -> None:
    async with channel.spawn(Command.of("cat", "/dev/zero")) as process:
        assert await process.read() is not None
        await asyncio.sleep(2)
        assert process._pieces.qsize() <= process._pieces.maxsize
    assert (await channel.exec(Command.of("true"))).exit.ok


async def test_both_streams_are_drained_together(channel: VboxChannel) -> None:
    line = "dd if=/dev/zero bs=100k count=2 2>/dev/null; dd if=/dev/zero bs=100k count=2 >&2"
    result = await channel.exec(Command.of("sh", "-c", line))
    assert len(result.stdout) == 204_800
    assert len(result.stderr) > 204_800


async def test_a_killed_bridge_fails_what_is_under_way_and_no_more(
    channel: VboxChannel, ready: LabMachine
) -> None:
    """Its session stays behind in VirtualBox; the next bridge finds it and ends it."""
    bridge = borrow(place_of(ready.lab))
    sleeping = asyncio.create_task(channel.exec(Command.of("sleep", "60")))
    await asyncio.sleep(2)
    for pid in ready.lab.pids("python3", "-c"):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChannelClosed, match="died"):
        await sleeping
    assert (await channel.exec(Command.of("true"))).exit.ok
    sessions = ready.lab.manage("guestcontrol", ready.name, "list", "sessions")
    assert sessions.count("hostctl") == 1
    await give_back(bridge)


async def test_a_killed_machine_ends_the_session(channel: VboxChannel, booted: LabMachine) -> None:
    running = asyncio.create_task(channel.exec(Command.of("sleep", "60")))
    await asyncio.sleep(1)
    await asyncio.to_thread(booted.kill)
    with pytest.raises(ChannelError):
        await running
    with pytest.raises(ChannelError):
        await channel.exec(Command.of("true"))
    await asyncio.to_thread(booted.restore)
    assert (await channel.exec(Command.of("true"))).exit.ok


async def test_a_restore_cuts_a_request_and_the_next_one_works(
    fresh: LabMachine,
) -> None:
    pulse = StillPulse()
    control = BridgedControl(place_of(fresh.lab), fresh.name)
    channel = VboxChannel(control, Login("root", "secret"), pulse)
    running = asyncio.create_task(channel.exec(Command.of("sleep", "60")))
    await channel.connect(READY_S)
    await asyncio.sleep(1)
    await asyncio.to_thread(fresh.restore)
    pulse.now += 1
    with pytest.raises((ChannelReset, ChannelClosed)):
        await running
    assert (await channel.exec(Command.of("true"))).exit.ok
    await channel.close()


@pytest.mark.slow
async def test_ten_restores_in_a_row(booted: LabMachine) -> None:
    for _ in range(RESTORES):
        await asyncio.to_thread(booted.restore)
        channel = guest_control(booted)
        result = await channel.exec(Command.of("cat", "/proc/uptime"))
        assert result.exit.ok
        await channel.close()


async def test_a_guest_without_additions_is_reached_by_the_agent(
    booted: LabMachine, tmp_path: Path
) -> None:
    await asyncio.to_thread(booted.restore, "bare")
    channel = guest_control(booted)
    begin = time.monotonic()
    with pytest.raises(ChannelTimeout, match="no Guest Additions") as caught:
        await channel.connect(2)
    assert time.monotonic() - begin < 10
    assert "serial" in (caught.value.hint or "")
    await channel.close()
    line = uart(booted, tmp_path)
    await line.connect(READY_S)
    assert (await line.exec(Command.of("uname"))).stdout == b"Linux\n"
    await line.close()
    await asyncio.to_thread(booted.restore)
