"""What a guest may tell of its terminals and connections, and the little that comes of a lie."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from hostctl_channels.dial import Target, dial
from hostctl_channels.errors import LocalProtocolError, PortsBusy, RemoteProtocolError
from hostctl_channels.interface import STDERR, STDOUT, Capability, Channel, Command, ExitStatus
from hostctl_channels.terminal import TOOLS, Size, Terminal, open_terminal

TOKEN = "TOKEN"  # what stands for the request's own in a prepared output


class LyingChannel:
    """A guest that says what was prepared, whatever it is asked; `asked` has its commands."""

    capabilities = frozenset(Capability)

    def __init__(self, said: Sequence[tuple[int, bytes]], end: ExitStatus | None = None) -> None:
        self._said = list(said)
        self._end = end or ExitStatus(0)
        self.asked: list[Command] = []
        self.token = b""

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool) -> AsyncIterator["LyingChannel"]:
        self.token = command.argv[5]
        yield self

    async def exec(self, command: Command) -> None:
        self.asked.append(command)

    async def read(self) -> tuple[int, bytes] | None:
        if not self._said:
            return None
        stream, data = self._said.pop(0)
        return stream, data.replace(TOKEN.encode(), self.token)

    async def wait(self) -> ExitStatus:
        return self._end


@asynccontextmanager
async def opened(channel: LyingChannel) -> AsyncIterator[Terminal]:
    lying = cast(Channel, channel)
    async with open_terminal(lying, Command.of("sh"), (), Size(), TOOLS) as terminal:
        yield terminal


async def test_a_size_that_comes_before_the_guest_has_told_its_terminal_waits_for_that() -> None:
    said = [
        (STDERR, b"TOKEN tool script\n"),
        (STDOUT, b"ready"),
        (STDERR, b"TOKEN tty /dev/pts/3\n"),
    ]
    channel = LyingChannel(said)
    async with opened(channel) as terminal:
        assert await terminal.read() == b"ready"
        await terminal.resize(11, 22)
        assert channel.asked == []
        assert await terminal.read() is None
    (command,) = channel.asked
    assert command.argv == (b"stty", b"-F", b"/dev/pts/3", b"rows", b"11", b"cols", b"22")


async def test_a_size_that_cannot_be_given_any_more_costs_no_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy(channel: LyingChannel, command: Command) -> None:
        raise PortsBusy("all are at work")

    monkeypatch.setattr(LyingChannel, "exec", busy)
    said = [
        (STDERR, b"TOKEN tool script\n"),
        (STDERR, b"TOKEN tty /dev/pts/3\nwords"),
        (STDOUT, b"more"),
    ]
    async with opened(LyingChannel(said)) as terminal:
        await terminal.resize(11, 22)
        assert await terminal.read() == b"words"
        assert await terminal.read() == b"more"


async def test_only_the_mark_with_its_filler_ends_what_telnetd_says() -> None:
    """The token alone may be seen in the guest's /proc, and be printed by the command."""
    said = [
        (STDERR, b"TOKEN tool telnetd\n"),
        (STDOUT, b"\r\r\nsh\0TOKEN\0set --"),
        (STDOUT, b"the end" + b"TOKEN" + bytes(7)),
        (STDOUT, bytes(4089)),
    ]
    channel, shown = LyingChannel(said), b""
    async with opened(channel) as terminal:
        while (data := await terminal.read()) is not None:
            shown += data
    assert shown == b"sh\0" + channel.token + b"\0set --the end"


async def test_a_terminal_that_is_no_path_of_one_is_never_used() -> None:
    for path in (b"/dev/sda", b"/dev/pts/../../etc/passwd", b"/dev/pts/0 -F /dev/sda", b"-a"):
        said = [(STDERR, b"TOKEN tool script\nTOKEN tty " + path + b"\n")]
        channel = LyingChannel(said)
        async with opened(channel) as terminal:
            assert await terminal.read() is None
            await terminal.resize(10, 10)
        assert channel.asked == []


async def test_a_size_is_set_at_the_path_that_was_told() -> None:
    channel = LyingChannel([(STDERR, b"TOKEN tty /dev/pts/7\nTOKEN tool script\n")])
    async with opened(channel) as terminal:
        await terminal.resize(10, 20)
        with pytest.raises(LocalProtocolError):
            await terminal.resize(0, 20)
    (command,) = channel.asked
    assert command.argv == tuple(b"stty -F /dev/pts/7 rows 10 cols 20".split())


@pytest.mark.parametrize("told", [b"999999", b"-1", b"x", b""])
async def test_a_status_that_is_none_does_not_count(told: bytes) -> None:
    said = [(STDERR, b"TOKEN tool script\nTOKEN exit " + told + b"\n")]
    async with opened(LyingChannel(said, ExitStatus(3))) as terminal:
        assert await terminal.wait() == ExitStatus(3)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ([(STDOUT, b"x" * 2**16)] * 9, "no terminal in the guest"),
        ([(STDERR, b"sh: not found\n")], "no terminal in the guest: sh: not found"),
        ([], "no terminal in the guest: no word"),
        ([(STDERR, b"TOKEN tool \x1b[2J\n")], "no terminal in the guest"),
        ([(STDERR, b"TOKEN tool " + b"x" * 2**16)], "without end"),
    ],
)
async def test_a_flood_a_lie_and_silence_end(said: list[tuple[int, bytes]], error: str) -> None:
    with pytest.raises(RemoteProtocolError, match=error):
        async with opened(LyingChannel(said)):
            pass


async def test_what_was_shown_before_the_tool_was_told_is_not_lost() -> None:
    said = [(STDOUT, b"early "), (STDERR, b"TOKEN tool script\nwarning "), (STDOUT, b"late")]
    async with opened(LyingChannel(said)) as terminal:
        shown = [await terminal.read() for _ in range(4)]
    assert shown == [b"early ", b"warning ", b"late", None]


async def test_a_count_that_overtakes_its_bytes_waits_for_them() -> None:
    said = [(STDERR, b"TOKEN eof 6\n"), (STDOUT, b"abc"), (STDOUT, b"def"), (STDOUT, b"never")]
    async with dial(cast(Channel, LyingChannel(said)), Target(80)) as socket:
        assert [await socket.read() for _ in range(3)] == [b"abc", b"def", None]


async def test_a_count_that_is_none_does_not_count() -> None:
    said = [(STDERR, b"TOKEN eof -1\n"), (STDOUT, b"abc")]
    async with dial(cast(Channel, LyingChannel(said)), Target(80)) as socket:
        assert [await socket.read() for _ in range(2)] == [b"abc", None]
