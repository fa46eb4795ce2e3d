"""Commands and files in a real guest, while its time is stopped, cut, or its parts are killed."""

import asyncio
import errno
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

import pytest

from hostctl.connect import BestChannel
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.errors import (
    ChannelError,
    ChannelReset,
    PortsBusy,
    SpawnFailed,
    TransferFailed,
)
from hostctl_channels.interface import STDOUT, Buffer, ExitStatus, Process
from hostctl_channels.ports import WORK, PortPool

pytestmark = pytest.mark.vm

T = TypeVar("T")
SOON_S = 60  # for what takes a second or two on an idle host


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(SOON_S):
        return await what


async def works(machine: Machine) -> None:
    """See that the next request works, on every port, and gets its own answer and nothing else."""
    words = [os.urandom(8).hex() for _ in range(6)]
    results = await soon(asyncio.gather(*(machine.exec("echo", word) for word in words)))
    assert [r.stdout for r in results] == [f"{word}\n".encode() for word in words]
    assert all(r.stderr == b"" for r in results)
    await soon(machine.put(words[0].encode(), "/tmp/works"))
    assert await soon(machine.read("/tmp/works")) == words[0].encode()


async def running(process: Process) -> None:
    """Wait until a command that says "on" first has said it."""
    piece = await soon(process.read())
    assert piece
    assert piece[1].startswith(b"on\n")


async def sleepers(machine: Machine, *seconds: int) -> list[bytes]:
    """Return the sleeps of so many seconds in the guest; the agent has others of its own."""
    lines = (await machine.shell("ps -o args", check=True)).stdout.splitlines()
    wanted = {b"sleep %d" % n for n in seconds}
    return sorted(line.strip() for line in lines if line.strip() in wanted)


# --- streams that stay open ----------------------------------------------------------------------


async def test_streams_stay_open_while_nobody_else_can_hold_them(machine: Machine) -> None:
    held = 0
    for number in range(12):  # the guest's own timers may be born in between, so not every time
        result = await soon(machine.exec("/bin/sh", "-c", f"echo {number}; echo {number}e >&2"))
        assert (result.stdout, result.stderr) == (b"%d\n" % number, b"%de\n" % number)
        held += await holds_streams(machine)
    assert held >= 4


async def test_what_a_command_leaves_behind_never_speaks_in_the_next(machine: Machine) -> None:
    for _ in range(3):
        await soon(machine.exec("true"))
        await soon(machine.exec("sh", "-c", "(while sleep 0.01; do echo junk; done) &"))
        assert not await holds_streams(machine)
        await works(machine)


async def test_what_may_be_refused_is_refused_before_it_begins(machine: Machine) -> None:
    for _ in range(3):
        await soon(machine.exec("/bin/true"))
    with pytest.raises(SpawnFailed):
        async with machine.process("true", cwd="/no/such"):
            raise AssertionError("must not begin")
    await works(machine)


async def holds_streams(machine: Machine) -> bool:
    """Tell whether an idle port has its streams open in the guest."""
    best = await machine._reach()
    assert isinstance(best, BestChannel)
    channel = best._channel
    assert isinstance(channel, AgentChannel)
    return any(port.holds_streams for port in channel._idle.values())


# --- streams and time -----------------------------------------------------------------------------


async def test_output_arrives_in_order_while_it_runs(machine: Machine) -> None:
    async with machine.process("cat", stdin=True) as process:
        for n in (b"1\n", b"2\n", b"3\n"):
            await process.write(n)
            assert await soon(process.read()) == (STDOUT, n)
        await process.close_stdin()
        assert (await soon(process.wait())).ok


async def test_a_pause_stretches_a_command(machine: Machine) -> None:
    async with machine.process("sh", "-c", "echo on; sleep 1; echo off") as process:
        await running(process)
        await machine.pause()
        waiting = asyncio.ensure_future(process.read())
        done, _ = await asyncio.wait([waiting], timeout=3)
        assert not done
        await machine.resume()
        assert await soon(waiting) == (STDOUT, b"off\n")
        assert (await soon(process.wait())).ok


async def test_a_restore_resets_a_command_and_the_next_one_works(machine: Machine) -> None:
    async with machine.process("sh", "-c", "echo on; sleep 100") as process:
        await running(process)
        await machine.restore_snapshot("base")
        with pytest.raises(ChannelReset):
            await soon(process.wait())
    await works(machine)


async def test_a_snapshot_of_a_talking_command_leaves_no_foreign_bytes(machine: Machine) -> None:
    async with machine.process("sh", "-c", "echo on; while :; do echo noise; done") as process:
        await running(process)
        saving = asyncio.ensure_future(machine.save_snapshot("talking"))
        while not saving.done():
            await soon(process.read())
        await saving
    await machine.restore_snapshot("talking")
    await works(machine)
    await machine.delete_snapshot("talking")


async def test_a_worker_that_comes_back_busy_is_not_waited_for(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    async with machine.process("sh", "-c", "echo on; sleep 100") as process:
        await running(process)
        await machine.save_snapshot("busy")
    with caplog.at_level(logging.DEBUG, "hostctl_channels"):
        await machine.restore_snapshot("busy")
        await works(machine)
    await machine.delete_snapshot("busy")
    before, restart, _ = caplog.text.partition("restarting its worker")
    assert restart
    assert "no greeting" not in before  # 1.2 s each
    assert not await sleepers(machine, 100)


@pytest.mark.parametrize("cut", ["restore", "reset"])
async def test_a_cut_resets_a_put_and_leaves_no_file(machine: Machine, cut: str) -> None:
    moved = asyncio.Event()
    data = io.BytesIO(bytes(48 << 20))
    putting = asyncio.ensure_future(
        machine.put(data, "/tmp/big", progress=lambda n: moved.set() if n > 4 << 20 else None)
    )
    await soon(moved.wait())
    if cut == "restore":
        await machine.restore_snapshot("base")
    else:
        await machine.reset()
    with pytest.raises(ChannelReset):
        await soon(putting)
    await works(machine)
    assert (await machine.shell("ls -A /tmp")).stdout.split() == [b"works"]


async def test_a_restore_resets_a_get(machine: Machine) -> None:
    await machine.shell("truncate -s 256M /tmp/big", check=True)
    moved = asyncio.Event()
    getting = asyncio.ensure_future(
        machine.get("/tmp/big", _Sink(), progress=lambda n: moved.set() if n > 1 << 20 else None)
    )
    await soon(moved.wait())
    await machine.restore_snapshot("base")
    with pytest.raises(ChannelReset):
        await soon(getting)
    await works(machine)


async def test_a_reset_resets_a_command(machine: Machine) -> None:
    async with machine.process("sh", "-c", "echo on; sleep 100") as process:
        await running(process)
        resetting = asyncio.ensure_future(machine.reset())
        with pytest.raises(ChannelReset):
            await soon(process.wait())
        await soon(resetting)
    await works(machine)


# --- parts that die -------------------------------------------------------------------------------


async def test_a_killed_qemu_is_told_within_seconds(machine: Machine) -> None:
    pid = (await machine.describe()).pid
    assert pid
    async with machine.process("sh", "-c", "echo on; sleep 100") as process:
        await running(process)
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChannelError):
            await soon(process.wait())
        assert time.monotonic() - begin < 20
    await machine.restore_snapshot("base")
    await works(machine)


async def test_a_killed_worker_is_told_and_replaced(machine: Machine) -> None:
    with pytest.raises(ChannelReset):
        await soon(machine.shell("kill -9 $PPID; sleep 100"))
    await works(machine)


async def test_a_killed_agent_comes_back(machine: Machine) -> None:
    with pytest.raises(ChannelError):
        await soon(
            machine.shell(
                "for d in /run/hostctl.*; do"
                " kill -9 ${d##*.} $(cut -d' ' -f4 /proc/$(cat $d/nap)/stat); done; kill -9 $PPID"
            )
        )
    await machine.wait("ready", timeout_s=SOON_S)
    await works(machine)


SCRIPT = """
import asyncio, sys
from pathlib import Path
from hostctl.controller import Controller
from hostctl.state import Home

async def main(state, runtime, name, what):
    async with Controller(Home(Path(state), Path(runtime))) as controller:
        machine = controller.machine(name)
        if what == "commands":
            for n in range(8):
                result = await machine.exec("echo", f"{name} {n}", check=True)
                assert result.stdout == f"{name} {n}\\n".encode(), result
        else:
            print("begin", flush=True)
            say = lambda n: print(n, flush=True)
            await machine.put(bytes(48 << 20), "/tmp/old", progress=say)

asyncio.run(main(*sys.argv[1:]))
"""


def other(home: Home, machine: Machine, what: str) -> subprocess.Popen[bytes]:
    """Start another process that uses the machine."""
    argv = [sys.executable, "-c", SCRIPT, str(home.state), str(home.runtime), machine.name, what]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def test_two_processes_share_a_machine(home: Home, machine: Machine) -> None:
    others = [other(home, machine, "commands") for _ in range(2)]
    await works(machine)
    for process in others:
        assert await asyncio.to_thread(process.wait, SOON_S) == 0
        assert process.stdout
        process.stdout.close()


async def test_a_killed_put_leaves_the_old_file(home: Home, machine: Machine) -> None:
    await machine.put(b"old", "/tmp/old")
    with other(home, machine, "put") as process:
        assert process.stdout
        while (
            int(b"0" + (await asyncio.to_thread(process.stdout.readline)).strip(b"begin\n"))
            < 4 << 20
        ):
            assert process.poll() is None
        process.kill()
    await works(machine)
    assert await machine.read("/tmp/old") == b"old"
    async with asyncio.timeout(SOON_S):
        left = [b""]
        while left != [b"old", b"works"]:
            left = (await machine.shell("ls -A /tmp; sleep 0.2")).stdout.split()


async def test_all_ports_taken_is_a_wait_and_then_an_error(machine: Machine) -> None:
    pool = PortPool(await machine._backend.endpoints(), machine._files.runtime)
    async with AsyncExitStack() as stack:
        for _ in WORK:
            command = machine.process("sh", "-c", "echo on; sleep 100")
            await running(await stack.enter_async_context(command))
        with pytest.raises(PortsBusy, match=str(os.getpid())):
            await pool.lease(WORK, 0.5)
        waiting = asyncio.ensure_future(machine.exec("echo", "mine"))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
    assert (await soon(waiting)).stdout == b"mine\n"


async def test_cancelling_kills_the_command_in_the_guest(machine: Machine) -> None:
    task = asyncio.ensure_future(machine.shell("sleep 77 & sleep 78"))
    async with asyncio.timeout(SOON_S):
        while len(await sleepers(machine, 77, 78)) < 2:
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert not await sleepers(machine, 77, 78)
    await works(machine)


async def test_a_daemon_that_keeps_its_output_disturbs_nobody(machine: Machine) -> None:
    for n in (50, 51):
        result = await soon(machine.shell(f"sleep {n} & echo started"))
        assert result.stdout == b"started\n"
    await works(machine)
    assert await sleepers(machine, 50, 51) == [b"sleep 50", b"sleep 51"]


async def test_signals_spare_what_an_earlier_command_left(machine: Machine) -> None:
    await machine.shell("setsid sleep 50 >/dev/null 2>&1 & sleep 51 >/dev/null 2>&1 &")
    statuses: list[ExitStatus] = []
    # A shell makes what it starts with & deaf to INT.
    for name, tree in (("INT", ""), ("TERM", "sleep 100 & "), ("KILL", "sleep 100 & ")):
        async with machine.process("sh", "-c", f"echo on; {tree}sleep 100") as process:
            await running(process)
            await process.signal(name)
            statuses.append(await soon(process.wait()))
    assert [status.signal for status in statuses] == [2, 15, 9]
    assert await sleepers(machine, 50, 51, 100) == [b"sleep 50", b"sleep 51"]


# --- files ----------------------------------------------------------------------------------------


class _Sink(io.BytesIO):
    """Counts what it gets, and sees that all of it is zeros."""

    size = 0

    def write(self, data: Buffer, /) -> int:  # type: ignore[override]  # wide enough here
        view = memoryview(data)
        assert not view.tobytes().strip(b"\0")
        self.size += len(view)
        return len(view)


@pytest.fixture
def blocks() -> bytes:
    """Return a mebibyte that never repeats itself."""
    return os.urandom(1 << 20)


async def test_large_files_go_in_and_out(machine: Machine, blocks: bytes) -> None:
    await soon(machine.put(blocks * 32, "/tmp/big", verify="sha256"))
    assert await soon(machine.read("/tmp/big", 1 << 30)) == blocks * 32
    await machine.shell("rm /tmp/big; truncate -s 256M /tmp/big", check=True)
    sink = _Sink()
    info = await soon(machine.get("/tmp/big", sink))
    assert info.size_bytes == sink.size == 256 << 20


async def test_a_full_and_a_read_only_disk_keep_the_old_file(machine: Machine) -> None:
    await machine.shell("mkdir /mnt/d; mount -t tmpfs -o size=2m t /mnt/d", check=True)
    await machine.put(b"old", "/mnt/d/file")
    for size in (3 << 20, 20 << 20):
        with pytest.raises(TransferFailed) as caught:
            await soon(machine.put(bytes(size), "/mnt/d/file"))
        assert caught.value.errno == errno.ENOSPC
    await works(machine)
    await machine.shell("mount -o remount,ro /mnt/d", check=True)
    with pytest.raises(TransferFailed) as caught:
        await soon(machine.put(b"new", "/mnt/d/file"))
    assert caught.value.errno == errno.EROFS
    assert await machine.read("/mnt/d/file") == b"old"
    assert (await machine.shell("ls -A /mnt/d")).stdout == b"file\n"
