"""The monitor against a real QEMU with no machine in it, which starts in a tenth of a second."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl import procs
from hostctl.backends.accel import BINARY
from hostctl.backends.qemu.monitor import monitor
from hostctl.errors import MonitorError

pytestmark = [pytest.mark.vm, pytest.mark.timeout(60)]


class Qemu:
    def __init__(self, socket: Path, pid: int) -> None:
        self.socket = socket
        self.pid = pid


@pytest.fixture
async def qemu() -> AsyncIterator[Qemu]:
    with tempfile.TemporaryDirectory(prefix="hq-") as root:
        socket = Path(root) / "qmp"
        words = [BINARY, *("-machine", "none", "-nodefaults", "-display", "none")]
        chardev = f"socket,id=qmp,path={socket},server=on,wait=off"
        words += ["-chardev", chardev, "-mon", "chardev=qmp,mode=control"]
        async with procs.running(words) as process:
            yield Qemu(socket, process.pid)


async def test_an_answer_and_a_refusal(qemu: Qemu) -> None:
    async with monitor(qemu.socket) as qmp:
        assert (await qmp.execute("query-status"))["status"] == "running"
        with pytest.raises(MonitorError, match="qemu monitor: nonesuch: The command nonesuch has"):
            await qmp.execute("nonesuch")
        assert await qmp.execute("query-status")


async def test_the_second_waits_for_the_first_and_gives_up_in_time(qemu: Qemu) -> None:
    async with monitor(qemu.socket):
        with pytest.raises(MonitorError, match=r"no greeting within 0\.2 s"):
            async with monitor(qemu.socket, timeout_s=0.2):
                pass
    async with monitor(qemu.socket) as qmp:
        assert await qmp.execute("query-status")


async def test_a_dead_qemu_is_told_in_the_middle_of_a_command(qemu: Qemu) -> None:
    async with monitor(qemu.socket) as qmp:
        os.kill(qemu.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(qmp.execute("query-status"))
        await asyncio.sleep(0.05)
        os.kill(qemu.pid, signal.SIGKILL)
        with pytest.raises(MonitorError, match="ended before it answered"):
            await waiting


async def test_a_hung_qemu_is_given_up(qemu: Qemu) -> None:
    async with monitor(qemu.socket) as qmp:
        os.kill(qemu.pid, signal.SIGSTOP)
        with pytest.raises(MonitorError, match=r"no answer within 0\.2 s"):
            await qmp.execute("query-status", timeout_s=0.2)


async def test_nobody_there_is_told_at_the_deadline_or_when_qemu_is_known_dead() -> None:
    begun = time.monotonic()
    with pytest.raises(MonitorError, match=r"within 0\.1 s"):
        async with monitor(Path("/nowhere/qmp"), timeout_s=0.1):
            pass
    with pytest.raises(MonitorError, match="qemu has ended"):
        async with monitor(Path("/nowhere/qmp"), is_alive=lambda: False):
            pass
    assert time.monotonic() - begun < 5


async def test_quit_is_answered_and_quiet(qemu: Qemu) -> None:
    async with monitor(qemu.socket) as qmp:
        assert await qmp.execute("quit") == {}
