"""Guest control's channel over a fake: what is started how, and what ends a session."""

import asyncio
import io

import pytest

from hostctl_channels.errors import (
    ChannelReset,
    LocalProtocolError,
    OutputTooLarge,
    Refused,
    ShortSource,
    SpawnFailed,
    TransferFailed,
)
from hostctl_channels.interface import STDERR, STDOUT, Command, ExitStatus, PutOptions
from hostctl_channels.login import Login
from hostctl_channels.vbox import Piece, VboxChannel
from hostctl_channels.vbox.files import is_plain
from tests.twin import StillPulse

from .vbox_fakes import FakeControl

LOGIN = Login("root", "x")
OK = ExitStatus(0)


def channel_of(control: FakeControl, pulse: StillPulse | None = None) -> VboxChannel:
    return VboxChannel(control, LOGIN, pulse or StillPulse())


async def test_a_path_is_started_as_it_is_and_a_name_by_the_shell() -> None:
    control = FakeControl(OK)
    channel = channel_of(control)
    await channel.exec(Command.of("/bin/true", "a b"))
    await channel.exec(Command.of("true"))
    direct, shell = control.sessions[0].started
    assert direct == ("/bin/true", "/bin/true", "a b")
    assert shell[0] == "/bin/sh"
    await channel.close()


async def test_a_name_that_comes_again_is_looked_up_once() -> None:
    control = FakeControl(Piece(STDOUT, b"/bin/true\n"), OK)
    channel = channel_of(control)
    for _ in range(3):
        await channel.exec(Command.of("true"))
    assert [words[0] for words in control.sessions[0].started] == [
        "/bin/sh",
        "/bin/sh",
        "/bin/true",
        "/bin/true",
    ]
    await channel.close()


async def test_a_lie_about_where_a_program_is_is_not_believed() -> None:
    control = FakeControl(Piece(STDOUT, b"/bin/tr\x1b[31mue\n"), OK)
    channel = channel_of(control)
    for _ in range(3):
        await channel.exec(Command.of("true"))
    assert {words[0] for words in control.sessions[0].started} == {"/bin/sh"}
    await channel.close()


async def test_words_that_are_no_text_go_to_standard_input() -> None:
    control = FakeControl(OK)
    channel = channel_of(control)
    for word in (b"\xff", "ü".encode()):  # VBoxService in a C locale refuses the second, too
        await channel.exec(Command.of("/bin/true", word), input=b"mine")
        session = control.sessions[0]
        assert session.started[-1][0] == "/bin/sh"
        assert "".join(session.started[-1]).isascii()
        assert session.fed.endswith(b"mine")
        assert word in session.fed
    await channel.close()


async def test_output_of_both_streams_is_kept_apart_and_bounded() -> None:
    said = (Piece(STDOUT, b"o"), Piece(STDERR, b"e"), Piece(STDOUT, b"O"), ExitStatus(3))
    control = FakeControl(*said)
    channel = channel_of(control)
    result = await channel.exec(Command.of("/x"))
    assert (result.stdout, result.stderr, result.exit.code) == (b"oO", b"e", 3)
    with pytest.raises(OutputTooLarge):
        await channel.exec(Command.of("/x"), max_output_bytes=1)
    await channel.close()


async def test_a_script_that_fails_before_the_command_is_no_output() -> None:
    control = FakeControl(Piece(STDERR, b"not our mark"), ExitStatus(125))
    channel = channel_of(control)
    result = await channel.exec(Command.of("/x", cwd="/y"))
    assert (result.exit.code, result.stderr) == (125, b"not our mark")
    await channel.close()


async def test_only_our_own_mark_makes_it_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: bytes(size))
    mark = b"0" * 16
    control = FakeControl(Piece(STDERR, mark[:5]), Piece(STDERR, mark[5:] + b" 2 no such folder"))
    control.says += (ExitStatus(125),)
    channel = channel_of(control)
    with pytest.raises(SpawnFailed, match="no such folder") as caught:
        await channel.exec(Command.of("/x", cwd="/y"))
    assert caught.value.errno == 2
    await channel.close()


async def test_leaving_a_command_kills_its_group() -> None:
    control = FakeControl()
    channel = channel_of(control)
    async with channel.spawn(Command.of("/sleep")):
        pass
    assert control.sessions[0].started[-1][-2:] == ("KILL", "1000")
    await channel.close()


async def test_a_cut_timeline_ends_the_request_and_the_session() -> None:
    control, pulse = FakeControl(), StillPulse()
    channel = channel_of(control, pulse)
    await channel.connect(1)
    running = asyncio.create_task(channel.exec(Command.of("/sleep")))
    await control.sessions[0].has_started.wait()
    pulse.now += 1
    with pytest.raises(ChannelReset):
        await running
    control.says = (OK,)
    assert not channel.is_warm
    await channel.exec(Command.of("/true"))
    assert len(control.sessions) == 2
    assert not control.sessions[0].is_open
    await channel.close()


async def test_one_session_serves_many_tasks_and_a_closed_one_is_replaced() -> None:
    control = FakeControl(OK)
    channel = channel_of(control)
    await asyncio.gather(*(channel.exec(Command.of("/true")) for _ in range(5)))
    assert len(control.sessions) == 1
    control.sessions[0].is_open = False
    await channel.exec(Command.of("/true"))
    assert len(control.sessions) == 2
    await channel.close()
    assert not control.sessions[1].is_open


async def test_a_usage_and_a_missing_login_are_refused() -> None:
    control = FakeControl(OK)
    with pytest.raises(Refused, match="CPU"):
        await channel_of(control).exec(Command.of("/true", usage=True))
    with pytest.raises(Refused, match="user"):
        await VboxChannel(control, None, StillPulse()).ping()
    assert not control.sessions


async def test_a_signal_is_a_name() -> None:
    control = FakeControl()
    channel = channel_of(control)
    async with channel.spawn(Command.of("/sleep")) as process:
        with pytest.raises(LocalProtocolError):
            await process.signal("TERM; reboot")
    await channel.close()


async def test_a_put_replaces_at_the_end_and_leaves_nothing_when_it_fails() -> None:
    control = FakeControl()
    channel = channel_of(control)
    seen: list[int] = []
    await channel.put(io.BytesIO(b"new"), 3, b"/tmp/f", PutOptions(mode=0o600), seen.append)
    session = control.sessions[0]
    assert session.files == {"/tmp/f": b"new"}
    assert seen == [3]
    with pytest.raises(ShortSource):
        await channel.put(io.BytesIO(b"ne"), 3, b"/tmp/f")
    assert session.files == {"/tmp/f": b"new"}
    with pytest.raises(TransferFailed) as caught:
        await channel.put(io.BytesIO(b"new"), 3, b"/tmp")
    assert caught.value.errno == 21
    await channel.close()


async def test_a_get_tells_facts_and_keeps_its_limit() -> None:
    control = FakeControl()
    channel = channel_of(control)
    await channel.connect(1)
    control.sessions[0].files["/tmp/f"] = bytearray(b"12345")
    sink = io.BytesIO()
    info = await channel.get(b"/tmp/f", sink, stat=True)
    assert (sink.getvalue(), info.mode, info.mtime_s) == (b"12345", 0o640, 7.0)
    control.sessions[0].files["/tmp/f"] = bytearray(b"12345")
    with pytest.raises(TransferFailed, match="larger than 4"):
        await channel.get(b"/tmp/f", io.BytesIO(), max_bytes=4)
    for path, number in ((b"/no", 2), (b"/tmp", 21), (b"/fifo", 22)):
        with pytest.raises(TransferFailed) as caught:
            await channel.get(path, io.BytesIO())
        assert caught.value.errno == number
    await channel.close()


def test_what_needs_the_guests_tools() -> None:
    assert is_plain(b"/a b", PutOptions(mode=0o600), None)
    assert not is_plain("/ü".encode(), None, None)
    assert not is_plain(b"/a\xff", None, None)
    assert not is_plain(b"/a\n", None, None)
    assert not is_plain(b"/a", None, "sha256")
    for options in (PutOptions(mtime_s=1.0), PutOptions(owner="a"), PutOptions(verify="sha256")):
        assert not is_plain(b"/a", options, None)
