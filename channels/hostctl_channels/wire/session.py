"""One port's conversation as a table: which events may answer which request, and what ends it.

No I/O, no clock.

NEW ──greet──▶ GREETING ──Hello──▶ IDLE ──ask──▶ BUSY ──Pong, Done, Exit, Failure──▶ IDLE
                                    └───────Ready (the agent began anew)─────────▶ LOST ◀┘
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from ..errors import LocalProtocolError, RemoteProtocolError
from .framing import Decoder, encode
from .limits import NO_NONCE, PING_SIZE
from .messages import (
    Begin,
    Data,
    Done,
    End,
    Event,
    Exit,
    Failure,
    Hello,
    Pong,
    Ready,
    Request,
    Started,
    hello,
)

__all__ = ["ANSWERS", "FINAL", "Phase", "Session"]


class Phase(Enum):
    """Where a conversation stands."""

    NEW = "new"
    GREETING = "greeting"
    IDLE = "idle"
    BUSY = "busy"
    LOST = "lost"


_BODY: Final = (Begin, Data, End)
ANSWERS: Final[dict[bytes, tuple[type, ...]]] = {
    b"H": (Hello, Failure),
    b"N": (Pong,),
    b"X": (Started, *_BODY, Exit, Failure),
    b"K": (Done, Failure),
    b"R": (Done, Failure),
    b"S": (Done, Failure),
    b"P": (Done, Failure),
    b"G": (*_BODY, Done, Failure),
    b"C": (Done, Failure),
    b"F": (Done, Failure),
}
FINAL: Final = (Hello, Pong, Exit, Done, Failure)


class Session:
    """The host's side of one port."""

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self._decoder = Decoder()
        self._kind = b""

    def greet(self, nonce: bytes) -> tuple[bytes, ...]:
        """Return the bytes of a greeting.

        All that arrives before its answer is dropped. May be repeated at any time.

        It begins with a line feed, which ends whatever half line the agent may have read.
        """
        self._decoder.greet(nonce)
        self.phase, self._kind = Phase.GREETING, b"H"
        return (b"\n", *encode(hello(), nonce))

    def ask(self, request: Request, nonce: bytes) -> tuple[bytes, ...]:
        """Return the bytes of a request, its body excepted. `nonce` must be fresh and random.

        Raises:
            LocalProtocolError: another request is under way, or this one cannot be sent; nothing
            has changed.
        """
        if self.phase is not Phase.IDLE:
            raise LocalProtocolError(f"the port is {self.phase.value}; one request at a time")
        buffers = encode(request, nonce)
        short = NO_NONCE[PING_SIZE:] + nonce[-PING_SIZE:]
        self._decoder.expect(short if request.kind == b"N" else nonce)
        self.phase, self._kind = Phase.BUSY, request.kind
        return buffers

    def feed(self, buffer: bytes | bytearray, size: int) -> Iterator[Event]:
        """Yield the events in the first `size` bytes. To be consumed whole.

        Raises:
            RemoteProtocolError: the guest broke the protocol; only `greet` leads on.
        """
        try:
            for event in self._decoder.feed(buffer, size):
                self._advance(event)
                yield event
        except RemoteProtocolError:
            self.phase = Phase.LOST
            raise

    def _advance(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.phase = Phase.LOST
        elif self.phase not in (Phase.BUSY, Phase.GREETING) or not isinstance(
            event, ANSWERS[self._kind]
        ):
            raise RemoteProtocolError(
                f"{type(event).__name__} is no answer while {self.phase.value}"
            )
        elif isinstance(event, FINAL):
            self.phase = Phase.IDLE
