"""The wire, sans I/O.

Bytes in, events out; requests in, bytes out. The spec is docs/PROTOCOL.md.
"""

from __future__ import annotations

from . import messages
from .framing import StreamDecoder, encode, encode_end, encode_stdin
from .limits import MAX_STDIN, NONCE_SIZE
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
)
from .session import Phase, Session

__all__ = [
    "MAX_STDIN",
    "NONCE_SIZE",
    "Begin",
    "Data",
    "Done",
    "End",
    "Event",
    "Exit",
    "Failure",
    "Hello",
    "Phase",
    "Pong",
    "Ready",
    "Request",
    "Session",
    "Started",
    "StreamDecoder",
    "encode",
    "encode_end",
    "encode_stdin",
    "messages",
]
