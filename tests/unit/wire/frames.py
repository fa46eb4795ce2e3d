"""The golden frames of tests/data/frames, and how to feed bytes to the wire."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from hostctl_channels.wire import Data, Event, Session, messages
from hostctl_channels.wire.session import Phase

FRAMES = Path(__file__).parents[2] / "data" / "frames"
NONCE = b"0123456789abcdef"


def golden(name: str) -> bytes:
    """Return the bytes of a golden frame."""
    return bytes.fromhex((FRAMES / f"{name}.hex").read_text())


def answering(kind: bytes, name: str) -> bytes:
    """Return a golden frame with the nonce of an answer to a request of this kind."""
    short, own = b"000000000000cdef", {b"N": b"000000000000cdef"}.get(kind, NONCE)
    return golden(name).replace(short, own).replace(NONCE, own)


def names(side: str) -> list[str]:
    """Return the names of all golden frames of a side."""
    return sorted(path.stem for path in FRAMES.glob(f"{side}-*.hex"))


def greeted() -> Session:
    """Return a session that has been greeted with NONCE."""
    session = Session()
    session.greet(NONCE)
    assert [type(event) for event in feed(session, golden("guest-greeting"))] == [messages.Hello]
    assert session.phase is Phase.IDLE
    return session


def asked(kind: bytes) -> Session:
    """Return a session that waits for the answer to a request of this kind."""
    session = greeted()
    session.ask(messages.Request(kind), NONCE)
    return session


def feed(session: Session, *chunks: bytes) -> list[Event]:
    """Feed chunks; return the events, views copied, neighbouring data joined."""
    return list(_joined(event for chunk in chunks for event in _copied(session, chunk)))


def _copied(session: Session, chunk: bytes) -> Iterator[Event]:
    for event in session.feed(chunk, len(chunk)):
        yield Data(memoryview(bytes(event.view))) if isinstance(event, Data) else event


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    data = b""
    for event in events:
        if isinstance(event, Data):
            data += event.view
            continue
        if data:
            yield Data(memoryview(data))
            data = b""
        yield event
    if data:
        yield Data(memoryview(data))
