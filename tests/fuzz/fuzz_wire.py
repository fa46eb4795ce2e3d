"""No matter what bytes a guest sends: events, or RemoteProtocolError, in bounded memory.

`make fuzz` looks for new inputs; what was worth keeping lies in corpus/ and is replayed by
test_corpus.py.
The first byte chooses the request under way, the second how the rest is cut.
"""

from __future__ import annotations

from hostctl_channels.errors import RemoteProtocolError
from hostctl_channels.wire import Data, Request, Session, StreamDecoder
from hostctl_channels.wire.session import ANSWERS

NONCE = b"0123456789abcdef"
GREETING = b"\x9dHH\0" + NONCE + b"\0\0\0\x01\x01"
KINDS = sorted(ANSWERS)


def one_input(data: bytes) -> None:
    """Feed one input to a session and to a stream, whole and in pieces."""
    if len(data) < 2:
        return
    kind, step, rest = KINDS[data[0] % len(KINDS)], data[1] % 32 + 1, data[2:]
    assert _events(kind, rest, len(rest) or 1) == _events(kind, rest, step)
    assert _stream(rest, len(rest) or 1) == _stream(rest, step)


def _events(kind: bytes, data: bytes, step: int) -> list[str]:
    session = Session()
    session.greet(NONCE)
    if kind != b"H":
        list(session.feed(GREETING, len(GREETING)))
        session.ask(Request(kind), NONCE)
    seen, raw = [], 0
    try:
        for at in range(0, len(data), step):
            chunk = data[at : at + step]
            for event in session.feed(chunk, len(chunk)):
                if isinstance(event, Data):
                    raw += len(event.view)
                else:
                    seen.append(f"{raw} {event}")
    except RemoteProtocolError:
        seen.append("refused")
    return seen


def _stream(data: bytes, step: int) -> bytes:
    decoder = StreamDecoder(NONCE)
    pieces = []
    for at in range(0, len(data), step):
        chunk = data[at : at + step]
        pieces += [bytes(view) for view in decoder.feed(chunk, len(chunk))]
    return b"".join(pieces)
