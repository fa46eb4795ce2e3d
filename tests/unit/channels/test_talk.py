"""What arrives on a console is cut into clean lines, in bounded memory, whatever it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl_channels.errors import ChannelClosed, LocalProtocolError
from hostctl_channels.interface import Buffer
from hostctl_channels.talk import MAX_LINE, Lines, Talk, clean, split_mark


class Script:
    """A link that says prepared things, and keeps what it is told."""

    def __init__(self, *said: bytes) -> None:
        self._said = list(said)
        self.heard = b""

    async def receive_into(self, buffer: bytearray) -> int:
        if not self._said:
            return 0
        piece = self._said.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)

    async def send(self, data: Buffer) -> None:
        self.heard += bytes(data)

    def close(self) -> None:
        self._said.clear()


def test_escapes_and_carriage_returns_are_no_text() -> None:
    assert clean(b"\x1b[1;31mred\x1b[0m\r\x1b]0;title\x07!\x1b(B\x1b[?2004h") == b"red!"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes]) -> None:
    one, many = Lines(), Lines()
    whole = b"".join(pieces)
    assert one.feed(whole) == [line for piece in pieces for line in many.feed(piece)]
    assert one.rest == many.rest == whole.rpartition(b"\n")[2]


def test_an_endless_line_is_kept_only_at_its_end() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 16384) == []
    assert len(lines.rest) == 65536
    assert lines.feed(b"end\n")[0].endswith(b"xend")


@given(st.from_regex(rb"hc[0-9a-f]{12}", fullmatch=True))
def test_no_echo_of_a_mark_holds_it(mark: bytes) -> None:
    written = split_mark(mark)
    assert mark not in written
    assert written.replace(b'""', b"") == mark


async def test_no_line_is_longer_than_a_tty_takes() -> None:
    link = Script()
    with pytest.raises(LocalProtocolError):
        await Talk(link).send(b"ok\n" + b"x" * (MAX_LINE + 1))
    assert link.heard == b""


async def test_an_end_of_the_line_is_told() -> None:
    with pytest.raises(ChannelClosed):
        await Talk(Script(b"login: ")).line()


async def test_last_words_cannot_steer_a_terminal() -> None:
    talk = Talk(Script(b"\x1b[2Jpanic\x07:\r\n\xff boo\n"))
    assert await talk.line() == b"panic\x07:"
    assert talk.last_words() == "panic : \\xff boo"


@given(st.binary(max_size=2000))
async def test_garbage_answers_nothing(data: bytes) -> None:
    talk = Talk(Script(data))
    with pytest.raises(ChannelClosed):
        await talk.answers(b"echo %s\n", 1)
    assert re.fullmatch(r"[^\x00-\x1f\x7f]*", talk.last_words())
