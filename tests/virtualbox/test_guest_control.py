"""Guest control where it is hard: restores, wrong passwords, crashes, guests without Additions."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.virtualbox.guest import BridgedControl
from hostctl_channels.errors import (
    ChannelClosed,
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    LoginFailed,
    Refused,
)
from hostctl_channels.interface import STDOUT, Command
from hostctl_channels.login import Login
from hostctl_channels.vbox import VboxChannel
from hostctl_channels.vbox.process import VboxProcess
from tests.twin import StillPulse

from .laboratory import GUEST_MARKS, PASSWORD
from .machine import LabMachine
from .test_channel import READY_S, guest_control, place_of, uart

RESTORES = 10
pytestmark = [*GUEST_MARKS, pytest.mark.timeout(300)]


@pytest.fixture
async def channel(ready: LabMachine) -> AsyncIterator[VboxChannel]:
    channel = guest_control(ready)
    await channel.connect(READY_S)
    yield channel
    await channel.close()


@contextlib.asynccontextmanager
async def sleeping(channel: VboxChannel) -> AsyncIterator[VboxProcess]:
    """Yield a command that has begun and does not end by itself."""
    command = Command.of("sh", "-c", "echo begun; exec sleep 600")
    async with channel.spawn(command) as process:
        assert await process.read() == (STDOUT, b"begun\n")
        yield process


async def test_a_wrong_password_is_refused_once_and_named(ready: LabMachine) -> None:
    wrong = "not-the-password"
    channel = guest_control(ready, password=wrong)
    with pytest.raises(LoginFailed) as caught:
        await channel.exec(Command.of("true"))
    assert wrong not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    await channel.close()


async def test_without_a_login_it_is_refused_with_a_hint(ready: LabMachine) -> None:
    channel = VboxChannel(BridgedControl(place_of(ready.lab), ready.name), None, StillPulse())
    with pytest.raises(Refused, match="wants a user") as caught:
        await channel.ping()
    assert "600" in (caught.value.hint or "")


async def test_another_user_runs_as_that_user_and_no_password_is_told(
    ready: LabMachine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    channel = guest_control(ready, user="user")
    result = await channel.exec(Command.of("id", "-un"))
    assert result.stdout == b"user\n"
    assert not any("password" in line and PASSWORD in line for line in command_lines())
    assert "guest control: a session" in caplog.text
    assert PASSWORD not in caplog.text
    await channel.close()


async def test_a_killed_bridge_fails_what_is_under_way_and_no_more(
    channel: VboxChannel, ready: LabMachine
) -> None:
    """Its session stays behind in VirtualBox; the next bridge finds it and ends it."""
    async with sleeping(channel) as process:
        for pid in ready.lab.pids("python3", "-c"):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChannelClosed, match="died"):
            await process.wait()
    assert (await channel.exec(Command.of("true"))).exit.ok
    sessions = ready.lab.manage("guestcontrol", ready.name, "list", "sessions")
    assert sessions.count("hostctl") == 1


async def test_a_killed_machine_ends_the_session(channel: VboxChannel, booted: LabMachine) -> None:
    async with sleeping(channel) as process:
        await asyncio.to_thread(booted.kill)
        with pytest.raises(ChannelError):
            await process.wait()
    with pytest.raises(ChannelError):
        await channel.exec(Command.of("true"))
    await asyncio.to_thread(booted.restore)
    assert (await channel.exec(Command.of("true"))).exit.ok


async def test_a_restore_cuts_a_request_and_the_next_one_works(ready: LabMachine) -> None:
    pulse = StillPulse()
    control = BridgedControl(place_of(ready.lab), ready.name)
    channel = VboxChannel(control, Login("root", PASSWORD), pulse)
    async with sleeping(channel) as process:
        await asyncio.to_thread(ready.restore)
        pulse.now += 1
        with pytest.raises((ChannelReset, ChannelClosed)):
            await process.wait()
    assert (await channel.exec(Command.of("true"))).exit.ok
    await channel.close()


@pytest.mark.nightly  # ten in a row by hostctl itself are in test_backend.py; this takes a minute
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


def command_lines() -> Iterator[str]:
    """Yield those of all processes of this host."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            yield path.read_text(errors="replace")
