"""The guest agent's lines: what is believed of them, and what is not."""

import json
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl_channels.errors import LocalProtocolError, RemoteProtocolError
from hostctl_channels.qga.wire import (
    MAX_DEPTH,
    MAX_JUNK,
    MAX_VALUES,
    Conversation,
    Failure,
    Request,
    field,
    is_carried,
    parse,
)

PING = Request.of("guest-ping")


def feed(talk: Conversation, data: bytes) -> bytes | None:
    return talk.feed(memoryview(data))


def synced() -> Conversation:
    talk = Conversation()
    talk.sync(7)
    feed(talk, b'\xff{"return": 7}\n')
    return talk


class TestSync:
    def test_the_request_begins_with_a_delimiter(self) -> None:
        text = Conversation().sync(7)
        assert text[:1] == b"\xff"
        assert json.loads(text[1:]) == {"execute": "guest-sync-delimited", "arguments": {"id": 7}}

    def test_all_before_the_answer_is_dropped(self) -> None:
        talk = Conversation()
        talk.sync(7)
        feed(talk, b'{"return": {"exited": true, "out-data": "AAAA')
        feed(
            talk, b'"}}\n{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n\xff{"re'
        )
        feed(talk, b'turn": 6}\n')
        assert not talk.is_synced
        feed(talk, b'\xff{"return": ')
        feed(talk, b"7}\n")
        assert talk.is_idle

    def test_a_repeated_sync_counts_by_its_own_number(self) -> None:
        talk = Conversation()
        talk.sync(7)
        talk.sync(8)
        feed(talk, b'\xff{"return": 7}\n\xff{"return": 8}\n')
        assert talk.is_idle

    @pytest.mark.parametrize(
        "line", [b'{"return": "7"}', b'{"return": 7.0}', b'{"return": [7]}', b"7", b"", b"{" * 300]
    )
    def test_nothing_else_is_an_answer(self, line: bytes) -> None:
        talk = Conversation()
        talk.sync(7)
        feed(talk, b"\xff" + line + b"\n")
        assert not talk.is_synced

    def test_more_after_the_answer_is_refused(self) -> None:
        for more in (b"{", b"\xff", b'\xff{"return": 7}\n'):
            talk = Conversation()
            talk.sync(7)
            with pytest.raises(RemoteProtocolError):
                feed(talk, b'\xff{"return": 7}\n' + more)

    def test_a_flood_ends_and_is_not_kept(self) -> None:
        talk = Conversation()
        talk.sync(7)
        piece = b"\xff" + b"x" * (1 << 20)
        tracemalloc.start()
        for _ in range(MAX_JUNK // len(piece)):
            feed(talk, piece)
        with pytest.raises(RemoteProtocolError):
            feed(talk, piece)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


class TestReply:
    def test_comes_whole_however_it_was_cut(self) -> None:
        talk = synced()
        talk.ask(PING)
        assert feed(talk, b'{"retu') is None
        assert feed(talk, b'rn": {}}\n') == b'{"return": {}}'
        assert talk.is_idle

    def test_unasked_is_refused(self) -> None:
        with pytest.raises(RemoteProtocolError):
            feed(synced(), b'{"return": {}}\n')

    def test_twice_is_refused(self) -> None:
        talk = synced()
        talk.ask(PING)
        with pytest.raises(RemoteProtocolError):
            feed(talk, b'{"return": {}}\n{"return": {}}\n')

    def test_without_end_is_refused_at_its_limit(self) -> None:
        talk = synced()
        talk.ask(PING._replace(max_reply_bytes=1000))
        assert feed(talk, b"x" * 1000) is None
        with pytest.raises(RemoteProtocolError):
            feed(talk, b"x")


class TestParse:
    def test_values_and_failures(self) -> None:
        assert parse(b'{"return": {"pid": 3}}') == {"pid": 3}
        assert parse(b'{"error": {"class": "X", "desc": "no \\u001b[2J\\nway"}}') == Failure(
            "X", "no ?[2J way"
        )

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"[]",
            b"{}",
            b'{"error": 3}',
            b'{"error": {"class": 3, "desc": ""}}',
            b'{"return": \xff}',
            b'{"return": ' + b"9" * 5000 + b"}",
            b'{"return": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
            b'{"return": ' + b"[" * 100_000,
            b'{"return": [' + b"[]," * MAX_VALUES + b"[]]}",
        ],
    )
    def test_anything_else_is_refused(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse(line)

    def test_a_flat_list_is_not_deep(self) -> None:
        assert parse(b'{"return": [' + b"{}," * 100 + b"{}]}") == [{}] * 101

    def test_a_field_is_of_its_type_or_refused(self) -> None:
        value = {"pid": 3, "exited": True, "out-data": "x"}
        assert field(value, "pid", int) == 3
        assert field(value, "signal", int, -1) == -1
        for name, kind in (("exited", int), ("out-data", bytes), ("gone", int)):
            with pytest.raises(RemoteProtocolError):
                field(value, name, kind)
        with pytest.raises(RemoteProtocolError):
            field([], "pid", int)


class TestRequest:
    def test_text_travels_as_it_is(self) -> None:
        request = Request.of("guest-exec", {"path": "sh", "arg": ['"', "\n", "ü", "\x7f"]})
        assert request.text.count(b"\n") == 1
        assert json.loads(request.text)["arguments"]["arg"] == ['"', "\n", "ü", "\x7f"]

    def test_half_a_character_is_refused_here(self) -> None:
        with pytest.raises(LocalProtocolError):
            Request.of("guest-exec", {"path": "\udcff"})

    def test_what_the_agents_parser_takes(self) -> None:
        assert is_carried(b"plain \x01 \x7f")
        assert is_carried("ü\U0001f600".encode())
        for text in (b"\xff", "\ufffe".encode(), "\ufdd0".encode(), "\U0001ffff".encode()):
            assert not is_carried(text)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_gives_replies_or_one_error(pieces: list[bytes]) -> None:
    talk = synced()
    talk.ask(PING)
    try:
        for piece in pieces:
            if (reply := feed(talk, piece)) is not None:
                parse(reply)
    except RemoteProtocolError:
        pass


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=8))
def test_any_noise_in_any_pieces_is_dropped_before_the_answer(
    noise: bytes, cuts: list[int]
) -> None:
    talk = Conversation()
    talk.sync(7)
    whole = noise.replace(b"7", b"6") + b'\n\xff{"return": 7}\n'
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    for begin, end in pairwise(edges):
        feed(talk, whole[begin:end])
    assert talk.is_idle


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=20,
    )
)
def test_any_json_is_a_value_or_one_error(value: object) -> None:
    for reply in (value, {"return": value}, {"error": value}):
        with suppress(RemoteProtocolError):
            parse(json.dumps(reply).encode())


@pytest.mark.parametrize(
    ("text", "is_unknown", "is_stale"),
    [
        ("Command guest-exec has been disabled", True, False),
        ("The command guest-exec has been disabled for this instance", True, False),
        ("unable to execute QEMU agent command 'x': Command 'x' has not been found", True, False),
        ("handle '1001' has not been found", False, True),
        ("failed to open file '/has not been found'", False, False),
    ],
)
def test_a_forgotten_file_is_no_missing_rpc(text: str, is_unknown: bool, is_stale: bool) -> None:
    failure = Failure("GenericError", text)
    assert (failure.is_unknown, failure.is_stale) == (is_unknown, is_stale)
