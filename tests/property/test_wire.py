"""What must hold for any bytes: cuts do not matter, garbage is refused, memory is bounded."""

import string

import pytest
from construct import ConstructError, Struct
from hypothesis import given
from hypothesis import strategies as st

from hostctl_channels.errors import RemoteProtocolError
from hostctl_channels.wire import Data, Event, Session, StreamDecoder, layout, messages, schema
from hostctl_channels.wire.framing import encode
from hostctl_channels.wire.words import quote, unquote
from tests.unit.wire.frames import NONCE, asked, feed, golden

WORDS = st.binary(max_size=300).map(lambda b: b.replace(b"\0", b""))


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut bytes anywhere."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


# Bodies full of what the nonce begins with: the hard case for a search across cuts.
BODIES = st.one_of(st.binary(max_size=400), st.text("0123456789ab", max_size=200).map(str.encode))


@given(st.data(), st.lists(BODIES, max_size=3))
def test_any_split_gives_the_same_events(data: st.DataObject, bodies: list[bytes]) -> None:
    bodies = [body for body in bodies if NONCE not in body + NONCE[:-1]]
    frame = golden("guest-begin-stderr")[:24]
    stream = b"".join(frame + body + NONCE for body in bodies) + golden("guest-exit-3")
    expected = feed(asked(b"X"), stream)
    assert feed(asked(b"X"), *data.draw(cuts(stream))) == expected
    assert [bytes(e.view) for e in expected if isinstance(e, Data)] == [b for b in bodies if b]


@given(st.data(), BODIES, BODIES)
def test_any_split_of_a_stream_gives_the_same_data(
    data: st.DataObject, junk: bytes, body: bytes
) -> None:
    stream = junk.replace(NONCE, b"") + b"!" + NONCE + body.replace(NONCE, b"") + b"!" + NONCE
    decoder = StreamDecoder(NONCE)
    pieces = [
        bytes(view)
        for chunk in data.draw(cuts(stream + b"after"))
        for view in decoder.feed(chunk, len(chunk))
    ]
    assert b"".join(pieces) == body.replace(NONCE, b"") + b"!"
    assert decoder.ended


@given(st.data(), st.lists(st.sampled_from([NONCE[:n] for n in (1, 2, 9, 15)] + [b"x", b"0"])))
def test_a_release_loses_nothing_and_repeats_nothing(
    data: st.DataObject, words: list[bytes]
) -> None:
    body = b"".join(words).replace(NONCE, b"") + b"!"
    decoder = StreamDecoder(NONCE, begun=True)
    found = b""
    for chunk in data.draw(cuts(body)):
        found += b"".join(bytes(view) for view in decoder.feed(chunk, len(chunk)))
        if decoder.holds and data.draw(st.booleans()):
            found += decoder.release()
    found += b"".join(bytes(view) for view in decoder.feed(NONCE, len(NONCE)))
    assert (found, decoder.ended) == (body, True)


@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from(b"NXGPK"))
def test_garbage_gives_events_or_a_protocol_error(chunks: list[bytes], kind: int) -> None:
    session = asked(bytes([kind]))
    events: list[Event] = []
    try:
        for chunk in chunks:
            events += session.feed(chunk, len(chunk))
    except RemoteProtocolError:
        pass
    assert len(events) <= sum(map(len, chunks))


@given(st.data())
def test_broken_golden_frames_give_events_or_a_protocol_error(data: st.DataObject) -> None:
    frame = bytearray(
        golden(data.draw(st.sampled_from(["guest-exit-killed", "guest-error", "guest-done-facts"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    session = asked(data.draw(st.sampled_from([b"X", b"G"])))
    try:
        events = feed(session, bytes(frame))
    except RemoteProtocolError:
        events = []
    assert len(events) <= 1


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_a_greeting_is_found_in_any_junk(junk: list[bytes]) -> None:
    session = Session()
    session.greet(NONCE)
    events = feed(session, *(j.replace(NONCE, b"") for j in junk), b".", golden("guest-greeting"))
    assert [type(event) for event in events] == [messages.Hello]


@pytest.mark.timeout(60)
def test_a_flood_is_kept_in_bounded_memory() -> None:
    import tracemalloc

    session = Session()
    session.greet(NONCE)
    chunk = bytes(1 << 16)
    tracemalloc.start()
    try:
        for _ in range(500):
            assert not feed(session, chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(chunk)
    finally:
        tracemalloc.stop()


@given(st.lists(WORDS, max_size=8))
def test_words_survive(words: list[bytes]) -> None:
    assert unquote(b" ".join(map(quote, words))) == tuple(words)


@given(st.binary(max_size=60))
def test_what_parses_as_words_is_what_we_would_write(text: bytes) -> None:
    try:
        words = unquote(text)
    except ValueError:
        return
    assert b" ".join(map(quote, words)) == text or unquote(b" ".join(map(quote, words))) == words


@given(st.lists(WORDS, min_size=1, max_size=4), st.booleans())
def test_a_request_is_one_line_or_a_line_and_its_body(argv: list[bytes], stdin: bool) -> None:
    buffers = encode(messages.execute(argv, stdin=stdin), NONCE)
    line = schema.LINE.parse(buffers[0])
    assert buffers[0].count(b"\n") == 1
    assert line.length == sum(map(len, buffers[1:]))
    text = buffers[1] if len(buffers) > 1 else buffers[0][:-1].split(b" ", 3)[3]
    assert unquote(text)[-len(argv) :] == tuple(argv)


@given(
    st.sampled_from([messages.rescan(), messages.entropy(b""), messages.restart("1")]),
    st.lists(WORDS, max_size=4),
)
def test_the_fast_line_is_the_declared_one(request: messages.Request, words: list[bytes]) -> None:
    request = request._replace(words=tuple(words))
    (line,) = encode(request, NONCE)
    assert line == schema.LINE.build(request._asdict() | {"nonce": NONCE})
    assert schema.LINE.parse(line).words == request.words


@given(
    st.binary(min_size=1, max_size=1),
    st.integers(0, 255),
    st.text(string.hexdigits, min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
)
def test_the_fast_header_is_the_declared_one(
    kind: bytes, stream: int, nonce: str, length: int
) -> None:
    fields = {"kind": kind, "stream": stream, "nonce": nonce.encode(), "length": length}
    packed = layout.HEADER.pack(b"\x9dH", *fields.values())
    assert packed == schema.HEADER.build(fields)
    parsed = schema.HEADER.parse(packed)
    assert {key: value for key, value in parsed.items() if key in fields} == fields


@given(st.sampled_from(["HELLO", "EXIT", "DONE", "ERROR"]), st.binary(max_size=20))
def test_any_body_splits_into_the_declared_fields_or_is_refused(name: str, body: bytes) -> None:
    declaration: Struct = getattr(schema, name)
    try:
        parsed = declaration.parse(body)
        if declaration.build(parsed) != body:  # bytes that nobody declared follow
            raise ConstructError
    except ConstructError:
        with pytest.raises(ValueError, match="bytes"):
            layout.split(name, body)
    else:
        fields = tuple(value for key, value in parsed.items() if key != "_io")
        assert layout.split(name, body) == fields
