"""What every channel does, whatever carries it.

A channel joins by a function in `FACTORIES` that yields a `Subject`; the virtio-serial ports of a
real machine join in tests/vm/test_guest_contract.py, where the machine is. What a channel lacks it
refuses with `Refused` that names it; the suite holds it to that, too.
"""

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hostctl_channels.errors import (
    JobNotFound,
    OutputTooLarge,
    Refused,
    SpawnFailed,
    TransferFailed,
)
from hostctl_channels.interface import STDERR, STDOUT, Capability, Channel, Command, PutOptions
from hostctl_channels.jobs import Jobs, JobState, Piece
from tests.qga import host_agent
from tests.serial_twin import AgentOnTty, GettyOnTty
from tests.twin import PtyTwin, SocketTwin

ENOUGH_S = 40  # for anything here, on a guest that is emulated by a busy host


@dataclass(frozen=True, slots=True)
class Subject:
    """A connected channel, and an empty folder in its guest.

    `many_bytes` is a lot for it: more than its buffers hold, less than a line carries in a minute.
    """

    channel: Channel
    folder: bytes
    many_bytes: int = 262_145


Twin = SocketTwin | PtyTwin | AgentOnTty | GettyOnTty


@asynccontextmanager
async def twin_guest(kind: Callable[[str, Path], Twin]) -> AsyncIterator[Subject]:
    """Yield a guest that is some processes of this host, with dash."""
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        twin = kind("dash", Path(name))
        await twin.channel.connect(ENOUGH_S)
        yield Subject(twin.channel, _folder(name))
        if isinstance(twin, SocketTwin):
            twin.leftovers_are_fine = True  # nothing can be killed there
        await twin.close()


@asynccontextmanager
async def guest_agent() -> AsyncIterator[Subject]:
    """Yield QEMU's guest agent, run by this host."""
    async with host_agent() as agent:
        folder = _folder(str(agent.folder))
        channel = agent.channel()
        await channel.connect(ENOUGH_S)
        yield Subject(channel, folder)
        await channel.close()


def _folder(name: str) -> bytes:
    path = os.path.join(name, "files")
    os.mkdir(path)
    return path.encode()


Factory = Callable[[], AbstractAsyncContextManager[Subject]]
FACTORIES: dict[str, Factory] = {
    "socketpair": partial(twin_guest, SocketTwin),  # our agent on one port: no control, no streams
    "pty": partial(twin_guest, PtyTwin),  # our agent on all ports of a machine
    "qga": guest_agent,
    "agent-on-tty": partial(twin_guest, AgentOnTty),  # our agent, reached by a serial line
    "login-on-tty": partial(twin_guest, GettyOnTty),  # no agent at all
}
_NEEDS = {"qga": pytest.mark.needs("qemu-ga")}


@pytest.fixture(params=[pytest.param(name, marks=_NEEDS.get(name, ())) for name in FACTORIES])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Yield each channel in turn."""
    async with asyncio.timeout(3 * ENOUGH_S), FACTORIES[request.param]() as subject:
        yield subject


def sh(line: str, **options: object) -> Command:
    return Command.of("sh", "-c", line, **options)  # type: ignore[arg-type]  # a shorthand


@asynccontextmanager
async def lacking(subject: Subject, capability: Capability) -> AsyncIterator[None]:
    """Expect the block to work, or to be refused by the name of what the channel lacks."""
    if capability in subject.channel.capabilities:
        yield
        return
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.capability == capability.value


class ChannelContract:
    """The suite."""

    async def test_ping(self, subject: Subject) -> None:
        assert 0 < await subject.channel.ping() < ENOUGH_S

    async def test_connect_and_close_may_be_repeated(self, subject: Subject) -> None:
        await subject.channel.close()
        await subject.channel.close()
        await subject.channel.connect(ENOUGH_S)
        await subject.channel.connect(ENOUGH_S)
        assert (await subject.channel.exec(Command.of("true"))).exit.ok

    async def test_exec_tells_streams_and_status(self, subject: Subject) -> None:
        result = await subject.channel.exec(sh("printf out; printf err >&2; exit 3"))
        assert (result.exit.code, result.stdout, result.stderr) == (3, b"out", b"err")

    async def test_exec_tells_signals_from_statuses(self, subject: Subject) -> None:
        assert (await subject.channel.exec(sh("kill -9 $$"))).exit.signal == 9
        assert (await subject.channel.exec(sh("exit 137"))).exit.code == 137

    async def test_exec_takes_any_word_env_and_cwd(self, subject: Subject) -> None:
        word = bytes(range(1, 256))
        result = await subject.channel.exec(
            Command.of(
                "sh",
                "-c",
                'printf "%s|%s|%s" "$1" "$X" "$PWD"',
                "sh",
                word,
                env={b"X": word},
                cwd="/",
            )
        )
        assert result.stdout == word + b"|" + word + b"|/"

    async def test_exec_feeds_stdin(self, subject: Subject) -> None:
        data = os.urandom(subject.many_bytes)
        result = await subject.channel.exec(Command.of("cat"), input=data)
        assert result.stdout == data
        early = await subject.channel.exec(sh("exit 4"), input=data)
        assert early.exit.code == 4
        assert (await subject.channel.exec(Command.of("echo", "next"))).stdout == b"next\n"

    async def test_exec_that_cannot_start_says_why(self, subject: Subject) -> None:
        with pytest.raises(SpawnFailed) as caught:
            await subject.channel.exec(Command.of("true", cwd="/no/such"))
        assert caught.value.errno == 2
        assert (await subject.channel.exec(Command.of("true"))).exit.ok

    async def test_exec_enforces_a_timeout(self, subject: Subject) -> None:
        result = await subject.channel.exec(sh("sleep 60", timeout_s=0.5))
        assert result.exit.timed_out

    async def test_exec_bounds_output(self, subject: Subject) -> None:
        with pytest.raises(OutputTooLarge):
            await subject.channel.exec(sh("printf %01000d 1"), max_output_bytes=100)
        assert (await subject.channel.exec(Command.of("true"))).exit.ok

    async def test_streams_arrive_while_it_runs(self, subject: Subject) -> None:
        """Without live streams, nothing comes before the end, and the order is lost."""
        async with subject.channel.spawn(
            sh("echo one; read x; echo two >&2"), stdin=True
        ) as process:
            if Capability.STREAMS in subject.channel.capabilities:
                assert await process.read() == (STDOUT, b"one\n")
            await process.write(b"go\n")
            await process.close_stdin()
            found = [piece async for piece in _pieces(process.read)]
            assert (STDERR, b"two\n") in found
            assert (await process.wait()).ok

    async def test_signals_reach_the_whole_tree(self, subject: Subject) -> None:
        # Longer than a signal takes in a guest under load; and no shell may wait for a child that
        # got an INT before its exec, which loses it there (busybox).
        wait_s = 50 if Capability.SIGNAL in subject.channel.capabilities else 2
        for name, number in (("INT", 2), ("TERM", 15), ("KILL", 9)):
            async with subject.channel.spawn(sh(f"sleep 2 & exec sleep {wait_s}")) as process:
                async with lacking(subject, Capability.SIGNAL):
                    await process.signal(name)
                    status = await process.wait()
                    assert status.signal == number or status.code == 128 + number
                if Capability.SIGNAL not in subject.channel.capabilities:
                    assert (await process.wait()).ok
                    return

    async def test_leaving_a_command_kills_it(self, subject: Subject) -> None:
        if Capability.SIGNAL not in subject.channel.capabilities:
            return  # refused above; nothing can be killed
        mark = (subject.folder + b"/mark").decode()
        async with subject.channel.spawn(sh(f"while :; do echo >>{mark}; sleep 0.1; done")):
            pass
        twice = f"touch {mark}; wc -c <{mark}; sleep 2; wc -c <{mark}"
        first, second = (await subject.channel.exec(sh(twice))).stdout.split()
        assert first == second

    @pytest.mark.nightly
    @pytest.mark.timeout(400)
    async def test_silence_is_no_end(self, subject: Subject) -> None:
        """Who asks for signs of life, as libvirtd does, gives up after half a minute or one."""
        result = await subject.channel.exec(sh("sleep 60; echo over"))
        assert (result.stdout, result.exit.ok) == (b"over\n", True)
        await asyncio.sleep(40)
        assert (await subject.channel.exec(sh("echo again"))).stdout == b"again\n"

    async def test_files_go_both_ways(self, subject: Subject) -> None:
        for size in (0, 1, subject.many_bytes):
            data, path = os.urandom(size), subject.folder + b"/a b\n'\xff"
            info = await subject.channel.put(
                io.BytesIO(data), size, path, PutOptions(mode=0o750, mtime_s=1e9, verify="sha256")
            )
            assert info.size_bytes == size
            sink = io.BytesIO()
            got = await subject.channel.get(path, sink, stat=True, verify="sha256")
            assert sink.getvalue() == data
            assert (got.mode, got.mtime_s, got.sha256) == (0o750, 1e9, info.sha256)

    async def test_a_failed_put_leaves_the_old_file(self, subject: Subject) -> None:
        path = subject.folder + b"/file"
        await subject.channel.put(io.BytesIO(b"old"), 3, path)
        with pytest.raises(TransferFailed):
            await subject.channel.put(io.BytesIO(b"new"), 3, path, PutOptions(owner="no-such-user"))
        with pytest.raises(TransferFailed) as caught:
            await subject.channel.put(io.BytesIO(b"new"), 3, path + b"/x/y")
        assert caught.value.errno in (2, 20)
        sink = io.BytesIO()
        await subject.channel.get(path, sink)
        assert sink.getvalue() == b"old"
        assert (
            await subject.channel.exec(Command.of("ls", "-A", subject.folder))
        ).stdout == b"file\n"

    async def test_many_tasks_at_once(self, subject: Subject) -> None:
        async def one(n: int) -> bytes:
            return (await subject.channel.exec(sh(f"printf %s {n}"))).stdout

        found = await asyncio.gather(*(one(n) for n in range(6)))
        assert found == [str(n).encode() for n in range(6)]

    async def test_users_are_changed_or_refused(self, subject: Subject) -> None:
        async with lacking(subject, Capability.USER):
            with pytest.raises(SpawnFailed):
                await subject.channel.exec(Command.of("true", user="no-such-user"))

    async def test_cpu_time_is_told_or_refused(self, subject: Subject) -> None:
        async with lacking(subject, Capability.USAGE):
            result = await subject.channel.exec(sh("true", usage=True))
            assert result.exit.user_s is not None

    async def test_entropy_is_taken(self, subject: Subject) -> None:
        await subject.channel.feed_entropy(os.urandom(64))


async def _pieces(
    read: Callable[[], Awaitable[tuple[int, bytes] | None]],
) -> AsyncIterator[tuple[int, bytes]]:
    while piece := await read():
        yield piece


class TestChannel(ChannelContract):
    """The suite, over the twins."""

    async def test_a_job_outlives_the_channel(self, subject: Subject) -> None:
        jobs = Jobs(subject.channel)
        line = "cat; sleep 1; echo over >&2; exit 3"
        job = await jobs.spawn(sh(line), input=b"begun\n")
        await subject.channel.close()
        await subject.channel.connect(ENOUGH_S)
        status = await jobs.look(job, ENOUGH_S)
        assert status.exit
        assert (status.exit.code, status.exit.signal) == (3, None)
        assert await jobs.read(job, 0, 0) == Piece(b"begun\n", b"over\n", is_last=True)
        assert job in [each.id for each in await jobs.list()]
        await jobs.forget(job)

    async def test_a_job_that_runs_is_signalled(self, subject: Subject) -> None:
        jobs = Jobs(subject.channel)
        job = await jobs.spawn(sh("sleep 99"))
        assert (await jobs.look(job)).state is JobState.RUNNING
        await jobs.signal(job, "TERM")
        status = await jobs.look(job, ENOUGH_S)
        assert status.exit
        assert status.exit.signal == 15
        await jobs.forget(job)
        with pytest.raises(JobNotFound):
            await jobs.look(job)
