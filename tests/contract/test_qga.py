"""What is special about the guest agent's channel, before a real qemu-ga of this host."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl_channels.errors import (
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    LocalProtocolError,
    OutputTooLarge,
    Refused,
    ShortSource,
    SpawnFailed,
    TransferFailed,
)
from hostctl_channels.interface import STDERR, STDOUT, Capability, Command, PutOptions
from hostctl_channels.qga import QgaChannel, exchange, process
from hostctl_channels.qga.agent import MAX_CAPTURE
from hostctl_channels.qga.files import _Place, _write
from hostctl_channels.qga.wire import Request
from tests.qga import HostAgent, host_agent

from .test_channel import sh

pytestmark = pytest.mark.needs("qemu-ga")


@pytest.fixture
async def host() -> AsyncIterator[HostAgent]:
    async with asyncio.timeout(50), host_agent() as agent:
        yield agent


@pytest.fixture
async def channel(host: HostAgent) -> AsyncIterator[QgaChannel]:
    channel = host.channel()
    await channel.connect(20)
    yield channel
    await channel.close()


def open_files(host: HostAgent) -> int:
    return len(os.listdir(f"/proc/{host.pid}/fd"))


def children(host: HostAgent) -> list[str]:
    return Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()


class TestCommands:
    async def test_what_is_not_there_ends_as_in_a_shell(self, channel: QgaChannel) -> None:
        result = await channel.exec(Command.of("no-such-program"))
        assert (result.exit.code, result.stderr.count(b"No such file")) == (127, 1)
        assert (await channel.exec(Command.of("/etc/passwd"))).exit.code == 126
        result = await channel.exec(Command.of("no-such-program", cwd="/"))
        assert result.exit.code == 127

    async def test_a_word_that_the_kernel_refuses_is_told(self, channel: QgaChannel) -> None:
        with pytest.raises(SpawnFailed) as caught:
            await channel.exec(Command.of("echo", b"x" * 200_000))
        assert caught.value.errno == 7

    @pytest.mark.parametrize("cwd", ["/etc/passwd", "/no/such"])
    async def test_a_folder_that_is_none_is_told(self, channel: QgaChannel, cwd: str) -> None:
        with pytest.raises(SpawnFailed) as caught:
            await channel.exec(sh("exit 125", cwd=cwd))
        assert caught.value.errno in (2, 20)

    async def test_125_of_the_command_is_its_own(self, channel: QgaChannel) -> None:
        assert (await channel.exec(sh("echo 2 x >&2; exit 125", cwd="/"))).exit.code == 125

    async def test_env_is_added_to_the_agents(self, channel: QgaChannel) -> None:
        result = await channel.exec(sh('echo "$A-$PATH"; env', env={"A": "it's\n\xff"}))
        assert result.stdout.startswith("it's\n\xff-".encode())
        assert b"PATH=" in result.stdout
        assert b"_l=" not in result.stdout

    async def test_any_bytes_and_a_long_input(self, channel: QgaChannel) -> None:
        data = os.urandom(300_000)
        word = bytes(range(1, 256))
        result = await channel.exec(
            Command.of("sh", "-c", 'printf %s "$1" >&2; cat', "sh", word), input=data
        )
        assert (result.stderr, result.stdout) == (word, data)

    async def test_a_user_runs_it(self, channel: QgaChannel) -> None:
        if os.getuid():
            pytest.skip("needs root")
        result = await channel.exec(sh('echo "$(id -un) $A" "$1"', user="nobody", env={"A": "b c"}))
        assert result.stdout.split() == [b"nobody", b"b", b"c"]

    async def test_more_output_than_the_agent_keeps_is_an_error(self, channel: QgaChannel) -> None:
        fits = await channel.exec(sh(f"head -c {MAX_CAPTURE - 1} /dev/zero"))
        assert len(fits.stdout) == MAX_CAPTURE - 1
        with pytest.raises(OutputTooLarge, match="16 MiB, and the guest agent"):
            await channel.exec(sh(f"head -c {MAX_CAPTURE + 1} /dev/zero"))

    async def test_more_input_than_is_sent_at_once_is_refused(self, channel: QgaChannel) -> None:
        with pytest.raises(Refused, match="16 MiB of input") as caught:
            await channel.exec(Command.of("cat"), input=bytes(process.MAX_INPUT + 1))
        assert caught.value.capability == Capability.STREAMS
        async with channel.spawn(Command.of("cat"), stdin=True) as running:
            with pytest.raises(Refused):
                await running.write(bytes(process.MAX_INPUT + 1))

    async def test_output_comes_at_the_end_and_input_first(self, channel: QgaChannel) -> None:
        async with channel.spawn(sh("cat; echo e >&2"), stdin=True) as running:
            reading = asyncio.create_task(running.read())
            await running.write(b"one ")
            await asyncio.sleep(0.1)
            assert not reading.done()
            await running.write(b"two")
            await running.close_stdin()
            await running.close_stdin()
            assert await reading == (STDOUT, b"one two")
            assert await running.read() == (STDERR, b"e\n")
            assert await running.read() is None
            assert (await running.wait()).ok

    async def test_no_input_without_stdin(self, channel: QgaChannel) -> None:
        async with channel.spawn(Command.of("true")) as running:
            with pytest.raises(LocalProtocolError):
                await running.write(b"x")
            with pytest.raises(LocalProtocolError):
                await running.signal("; reboot")

    async def test_a_command_never_started_is_left_quietly(self, channel: QgaChannel) -> None:
        async with channel.spawn(Command.of("cat"), stdin=True):
            pass
        assert (await channel.exec(Command.of("true"))).exit.ok

    async def test_a_tree_is_killed_with_what_it_ignores(
        self, channel: QgaChannel, host: HostAgent
    ) -> None:
        line = "trap '' TERM INT; sleep 61 & sh -c 'sleep 62; :'; :"
        async with channel.spawn(sh(line)) as running:
            await asyncio.sleep(0.2)
            await running.signal("TERM")
            await asyncio.sleep(0.2)
            assert len(children(host)) == 1
        assert children(host) == []

    @pytest.mark.parametrize("after_s", [0, 0.002, 0.01, 0.05])
    async def test_cancelling_kills_it_whenever_it_comes(
        self, channel: QgaChannel, host: HostAgent, after_s: float
    ) -> None:
        task = asyncio.create_task(channel.exec(Command.of("sleep", "63")))
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children(host) == []
        assert (await channel.exec(Command.of("true"))).exit.ok

    async def test_asking_is_cheap(
        self, channel: QgaChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = 0
        status = channel.agent.status

        async def count(pid: int) -> object:
            nonlocal asked
            asked += 1
            return await status(pid)

        monkeypatch.setattr(channel.agent, "status", count)
        result = await channel.exec(Command.of("sleep", "2"))
        assert asked < 60
        assert result.duration_s < 4


class TestFiles:
    async def test_what_cannot_be_read_is_told(self, channel: QgaChannel, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path, number in ((tmp_path, 21), (tmp_path / "no", 2), (tmp_path / "fifo", 22)):
            with pytest.raises(TransferFailed) as caught:
                await channel.get(os.fsencode(path), io.BytesIO())
            assert (caught.value.errno, caught.value.filename) == (number, str(path))
        await channel.ping()

    async def test_a_folder_is_not_replaced(self, channel: QgaChannel, tmp_path: Path) -> None:
        with pytest.raises(TransferFailed) as caught:
            await channel.put(io.BytesIO(b"x"), 1, os.fsencode(tmp_path))
        assert caught.value.errno == 21

    async def test_large_ones_in_chunks_and_no_handle_is_left(
        self, channel: QgaChannel, host: HostAgent, tmp_path: Path
    ) -> None:
        await channel.ping()
        before = open_files(host)
        data, moved = os.urandom(5_000_001), list[int]()
        path = os.fsencode(tmp_path / "file")
        await channel.put(io.BytesIO(data), len(data), path, progress=moved.append)
        assert (tmp_path / "file").read_bytes() == data
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o644
        sink = io.BytesIO()
        info = await channel.get(path, sink, progress=moved.append)
        assert (sink.getvalue(), info.size_bytes) == (data, len(data))
        assert moved.count(len(data)) >= 2
        with pytest.raises(TransferFailed) as caught:
            await channel.get(path, io.BytesIO(), max_bytes=100)
        assert caught.value.errno == 27
        assert open_files(host) == before

    async def test_a_short_source_leaves_no_trace(
        self, channel: QgaChannel, host: HostAgent, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(b"old")
        before = open_files(host)
        with pytest.raises(ShortSource):
            await channel.put(io.BytesIO(b"new"), 4, os.fsencode(tmp_path / "file"))
        assert os.listdir(tmp_path) == ["file"]
        assert (tmp_path / "file").read_bytes() == b"old"
        assert open_files(host) == before

    async def test_cancelling_a_put_leaves_no_trace(
        self, channel: QgaChannel, host: HostAgent, tmp_path: Path
    ) -> None:
        before = open_files(host)
        putting = asyncio.create_task(
            channel.put(io.BytesIO(bytes(50_000_000)), 50_000_000, os.fsencode(tmp_path / "file"))
        )
        await asyncio.sleep(0.3)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert os.listdir(tmp_path) == []
        await channel.ping()
        assert open_files(host) == before

    async def test_nobody_else_reads_it_before_its_time(
        self, channel: QgaChannel, tmp_path: Path
    ) -> None:
        seen: set[int] = set()

        def look(_: int) -> None:
            seen.update(path.stat().st_mode & 0o7777 for path in tmp_path.iterdir())

        options = PutOptions(mode=0o640)
        size = 300_000  # smaller ones are sent at once
        path = os.fsencode(tmp_path / "f")
        await channel.put(io.BytesIO(bytes(size)), size, path, options, look)
        assert seen == {0o600}
        assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640

    async def test_a_name_that_json_cannot_carry_needs_no_trace(
        self, channel: QgaChannel, tmp_path: Path
    ) -> None:
        folder = os.fsencode(tmp_path) + b"/\xff \n'"
        os.mkdir(folder)
        await channel.put(io.BytesIO(b"x"), 1, folder + b"/\xfe", PutOptions(verify="sha256"))
        sink = io.BytesIO()
        await channel.get(folder + b"/\xfe", sink, stat=True)
        assert sink.getvalue() == b"x"
        assert os.listdir(folder) == [b"\xfe"]
        assert not [name for name in os.listdir("/tmp") if name.startswith(".hostctl-")]


class TestAllowing:
    async def test_a_forbidden_exec_is_named_with_its_setting(self) -> None:
        async with host_agent("--block-rpcs=guest-exec") as host:
            channel = host.channel()
            await channel.connect(20)
            assert Capability.CLOCK in channel.capabilities
            assert Capability.STDIN not in channel.capabilities
            with pytest.raises(Refused, match="does not allow guest-exec") as caught:
                await channel.exec(Command.of("true"))
            assert caught.value.capability == "guest-exec"
            for word in (
                "/etc/sysconfig/qemu-ga",
                "BLACKLIST_RPC",
                "FILTER_RPC_ARGS",
                "allow-rpcs",
            ):
                assert word in str(caught.value.hint)
            with pytest.raises(Refused, match="guest-exec"):
                await channel.put(io.BytesIO(b""), 0, b"/tmp/x")
            await channel.close()

    async def test_files_can_be_read_without_exec(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"text")
        async with host_agent("--block-rpcs=guest-exec,guest-exec-status") as host:
            channel = host.channel()
            sink = io.BytesIO()
            await channel.get(os.fsencode(tmp_path / "file"), sink, stat=True)
            assert sink.getvalue() == b"text"
            with pytest.raises(Refused, match="UTF-8 names only"):
                await channel.get(b"/tmp/\xff", sink)
            with pytest.raises(TransferFailed) as caught:
                await channel.get(os.fsencode(tmp_path), sink)
            assert caught.value.errno == 21
            await channel.close()

    async def test_an_rpc_forbidden_behind_our_back_is_named_too(self, host: HostAgent) -> None:
        channel = host.channel()
        with pytest.raises(Refused, match="does not allow guest-nonesuch"):
            await channel.agent.call("guest-nonesuch")
        await channel.close()


class TestLine:
    async def test_two_processes_take_turns(self, host: HostAgent, channel: QgaChannel) -> None:
        other = host.channel()
        long = asyncio.create_task(channel.exec(sh("sleep 3; echo done")))
        await asyncio.sleep(1)
        assert (await other.exec(Command.of("echo", "hi"))).stdout == b"hi\n"
        assert not long.done()
        assert (await long).stdout == b"done\n"
        await other.close()

    async def test_a_long_copy_lets_others_have_a_turn(
        self, host: HostAgent, channel: QgaChannel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(exchange, "_TURN_S", 0.2)
        size = 30_000_000
        long = asyncio.create_task(
            channel.put(io.BytesIO(bytes(size)), size, os.fsencode(tmp_path / "file"))
        )
        await asyncio.sleep(0.1)
        other = host.channel()
        assert await other.ping() > 0
        assert not long.done()
        await other.close()
        assert (await long).size_bytes == size

    async def test_after_silence_no_old_reply_is_taken(
        self, host: HostAgent, channel: QgaChannel
    ) -> None:
        os.kill(host.pid, signal.SIGSTOP)
        with pytest.raises(ChannelTimeout):
            await channel.agent.call("guest-get-osinfo", timeout_s=0.3)
        os.kill(host.pid, signal.SIGCONT)
        assert await channel.agent.call("guest-ping") == {}
        assert (await channel.os_info())["name"]

    async def test_a_cut_timeline_resets_a_command(
        self, host: HostAgent, channel: QgaChannel
    ) -> None:
        running = asyncio.create_task(channel.exec(Command.of("sleep", "2")))
        await asyncio.sleep(0.3)
        host.pulse.now += 1
        with pytest.raises(ChannelReset):
            await running
        assert (await channel.exec(Command.of("true"))).exit.ok

    async def test_a_cut_timeline_resets_a_copy_and_its_handle_is_not_used(
        self, host: HostAgent, channel: QgaChannel, tmp_path: Path
    ) -> None:
        def cut(_: int) -> None:
            host.pulse.now += 1

        with pytest.raises(ChannelReset):
            await channel.put(
                io.BytesIO(bytes(8_000_000)), 8_000_000, os.fsencode(tmp_path / "f"), progress=cut
            )
        assert not (tmp_path / "f").exists()

    async def test_what_another_world_answers_to_half_a_request_is_a_reset(
        self, host: HostAgent, channel: QgaChannel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ask = exchange._Line.ask

        async def restored(line: exchange._Line, request: Request) -> bytes:
            await ask(line, request)
            host.pulse.now += 1
            return b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'A\'"}}'

        place = _Place(channel.agent, host.pulse, os.fsencode(tmp_path / "f"), "put")
        handle = await channel.agent.open(place.target, "w")
        monkeypatch.setattr(exchange._Line, "ask", restored)
        with pytest.raises(ChannelReset):
            await _write(place, handle, b"AAAA")

    async def test_an_agent_that_ends_resets_a_command(
        self, host: HostAgent, channel: QgaChannel
    ) -> None:
        running = asyncio.create_task(channel.exec(Command.of("sleep", "2")))
        await asyncio.sleep(0.3)
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(ChannelError):
            await running

    async def test_pids_of_another_agent_are_a_reset(self, channel: QgaChannel) -> None:
        async with channel.spawn(Command.of("sleep", "1")) as running:
            assert running._pid is not None
            # Its status is told once: somebody else, a newborn agent too, makes it unknown.
            while await channel.agent.status(running._pid) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            with pytest.raises(ChannelReset):
                await running.wait()


async def test_the_system_is_told(channel: QgaChannel) -> None:
    assert (await channel.os_info())["kernel-release"] == os.uname().release
    assert channel.version
