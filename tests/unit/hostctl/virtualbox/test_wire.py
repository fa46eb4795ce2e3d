import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl.backends.virtualbox.bridge import wire
from hostctl.backends.virtualbox.bridge.wire import (
    Answer,
    Cancel,
    Decoder,
    Failure,
    Message,
    Request,
    WireError,
    encode,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
numbers = st.integers(0, 2**31)
bodies = st.none() | st.binary(max_size=100)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, numbers, st.text(max_size=10), st.dictionaries(st.text(), values), bodies),
    st.builds(Cancel, numbers),
    st.builds(Answer, numbers, values, bodies, st.booleans()),
    st.builds(Failure, numbers, st.text(max_size=10), st.text(max_size=50), numbers),
)


@given(st.lists(messages, max_size=4), st.data())
def test_messages_survive_any_cutting(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    decoder, got = Decoder(), list[Message]()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += decoder.feed(stream[:size])
        stream = stream[size:]
    assert got == sent


@pytest.mark.parametrize(
    "line",
    [
        b"libvirt: error: something printed\n",
        b"[]\n",
        b'{"is":"answer"}\n',
        b'{"is":"stranger","bytes":null,"id":1}\n',
        b'{"is":"cancel","bytes":-1,"id":1}\n',
        b'{"is":"cancel","bytes":99999999999,"id":1}\n',
        b'{"is":"cancel","bytes":null,"id":1,"more":2}\n',
    ],
)
def test_what_is_no_message_ends_the_conversation(line: bytes) -> None:
    with pytest.raises(WireError):
        list(Decoder().feed(line))


def test_a_line_without_end_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LINE", 100)
    decoder = Decoder()
    assert list(decoder.feed(b"x" * 100)) == []
    with pytest.raises(WireError, match="more than 100"):
        list(decoder.feed(b"x"))
