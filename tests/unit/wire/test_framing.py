"""Encoders and decoders: limits, cuts, junk."""

import pytest

from hostctl_channels.errors import LocalProtocolError, RemoteProtocolError
from hostctl_channels.wire import StreamDecoder, encode, encode_stdin, messages
from hostctl_channels.wire.framing import Decoder
from hostctl_channels.wire.limits import MAX_STDIN, MAX_WORDS
from hostctl_channels.wire.schema import HEADER, LINE

from .frames import NONCE, golden

OTHER = b"fedcba9876543210"


def test_long_words_of_an_exec_become_its_body() -> None:
    argv = [b"echo", b"x" * 2000]
    line, body = encode(messages.execute(argv), NONCE)
    assert LINE.parse(line).length == len(body)
    assert LINE.parse(line).words == ()
    whole = line.replace(b" %d " % len(body), b" 0 ")[:-1] + body + b"\n"
    assert LINE.parse(whole).words[-2:] == tuple(argv)


def test_a_long_path_stays_in_the_line() -> None:
    (line,) = encode(messages.get(b"/" + b"x" * 2000), NONCE)
    assert line.endswith(b"\n")


def test_too_many_words_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(LocalProtocolError, match="limit"):
        encode(messages.execute([b"x" * MAX_WORDS]), NONCE)


def test_a_nul_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="NUL"):
        encode(messages.get(b"/a\0b"), NONCE)


def test_standard_input_is_cut_without_copies() -> None:
    data = memoryview(bytearray(2 * MAX_STDIN + 1))
    frames = list(encode_stdin(data, NONCE))
    assert [len(piece) for _, piece in frames] == [MAX_STDIN, MAX_STDIN, 1]
    assert all(piece.obj is data.obj for _, piece in frames)
    assert LINE.parse(frames[0][0]).length == MAX_STDIN


def _stream(*chunks: bytes) -> tuple[bytes, StreamDecoder]:
    decoder = StreamDecoder(NONCE)
    out = b"".join(bytes(view) for chunk in chunks for view in decoder.feed(chunk, len(chunk)))
    return out, decoder


def test_a_stream_is_what_stands_between_the_nonces() -> None:
    out, decoder = _stream(b"junk" + NONCE + b"data" + NONCE + b"more junk")
    assert out == b"data"
    assert decoder.begun
    assert decoder.ended


def test_a_stream_may_be_empty() -> None:
    out, decoder = _stream(NONCE + NONCE)
    assert out == b""
    assert decoder.ended


def test_nothing_is_held_back_but_the_beginning_of_a_nonce() -> None:
    decoder = StreamDecoder(NONCE)
    list(decoder.feed(NONCE, 16))
    assert [bytes(v) for v in decoder.feed(b"prompt> ", 8)] == [b"prompt> "]
    assert [bytes(v) for v in decoder.feed(b"x0123", 5)] == [b"x"]
    assert [bytes(v) for v in decoder.feed(b"9", 1)] == [b"01239"]


def test_what_is_held_back_can_be_released_once() -> None:
    decoder = StreamDecoder(NONCE)
    assert not decoder.holds
    list(decoder.feed(NONCE[:3], 3))
    assert not decoder.holds  # it is junk, or the first nonce: no data in any case
    list(decoder.feed(NONCE[3:], 13))
    assert [bytes(v) for v in decoder.feed(b"x0123", 5)] == [b"x"]
    assert decoder.holds
    assert decoder.release() == b"0123"
    assert not decoder.holds
    assert list(decoder.feed(b"4", 1)) == []
    assert decoder.holds
    assert decoder.release() == b"4"
    assert [bytes(v) for v in decoder.feed(b"01", 2)] == []
    assert decoder.release() == b"01"
    assert [bytes(v) for v in decoder.feed(b"y" + NONCE, 17)] == [b"y"]
    assert decoder.ended
    assert not decoder.holds


def test_a_nonce_whose_begin_was_released_is_an_error() -> None:
    decoder = StreamDecoder(NONCE)
    list(decoder.feed(NONCE + NONCE[:5], 21))
    assert decoder.release() == NONCE[:5]
    with pytest.raises(RemoteProtocolError, match="paused in the middle of its end"):
        list(decoder.feed(NONCE[5:], 11))


def test_only_the_first_bytes_of_the_buffer_count() -> None:
    decoder = StreamDecoder(NONCE)
    buffer = bytearray(NONCE + b"data" + NONCE)
    assert [bytes(v) for v in decoder.feed(buffer, 18)] == [b"da"]
    assert not decoder.ended


def test_data_is_not_copied() -> None:
    decoder = StreamDecoder(NONCE)
    buffer = bytearray(NONCE + b"data")
    (view,) = decoder.feed(buffer, len(buffer))
    assert view.obj is buffer


def _decoder() -> Decoder:
    decoder = Decoder()
    decoder.greet(NONCE)
    greeting = golden("guest-greeting")
    assert len(list(decoder.feed(greeting, len(greeting)))) == 1
    return decoder


def test_everything_before_the_greeting_is_dropped() -> None:
    decoder = Decoder()
    decoder.greet(NONCE)
    junk = golden("guest-pong") + b"\x9dH" + bytes(range(256)) + golden("guest-greeting")[:19]
    chunk = junk + golden("guest-greeting")
    assert [type(e) for e in decoder.feed(chunk, len(chunk))] == [messages.Hello]


def test_a_greeting_sent_twice_is_heard_once() -> None:
    decoder = _decoder()
    decoder.expect(OTHER)
    chunk = golden("guest-greeting") + golden("guest-done").replace(NONCE, OTHER)
    assert list(decoder.feed(chunk, len(chunk))) == [messages.Done()]


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n",
        golden("guest-pong").replace(b"\x9d", b"\x9e"),
        golden("guest-pong").replace(b"P", b"Q"),
        golden("guest-done").replace(NONCE, OTHER),
        HEADER.build({"kind": b"P", "stream": 0, "nonce": NONCE, "length": 1}),
        HEADER.build({"kind": b"E", "stream": 0, "nonce": NONCE, "length": 0xFFFFFFFF}),
        HEADER.build({"kind": b"R", "stream": 0, "nonce": NONCE, "length": 0}),
        HEADER.build({"kind": b"H", "stream": 0, "nonce": OTHER, "length": 1}) + b"\x01",
    ],
)
def test_what_is_no_answer_to_us_is_refused(frame: bytes) -> None:
    decoder = _decoder()
    with pytest.raises(RemoteProtocolError):
        list(decoder.feed(frame, len(frame)))


def test_a_body_may_come_byte_by_byte() -> None:
    decoder = _decoder()
    frame = golden("guest-begin-stderr")
    events = [e for i in range(len(frame)) for e in decoder.feed(frame[i : i + 1], 1)]
    data = b"".join(bytes(e.view) for e in events if isinstance(e, messages.Data))
    assert data == b"oops\n"
    assert events[0] == messages.Begin(2)
    assert events[-1] == messages.End()
