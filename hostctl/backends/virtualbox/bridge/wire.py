"""Messages between hostctl and its bridge: a line of JSON each, and raw bytes where it says so.

Both ends use this module. It does no I/O. Either end is ours, so what breaks the rules is a bug, or
a library that printed into our pipe: it ends the conversation.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Mapping, NamedTuple, Union

__all__ = [
    "GREETING",
    "Answer",
    "Cancel",
    "Decoder",
    "Failure",
    "Message",
    "Request",
    "WireError",
    "encode",
]

GREETING = 0  # the id of what the bridge says before it was asked anything
MAX_LINE = 4 << 20  # the longest are reports of machines with hundreds of snapshots
MAX_BODY = 16 << 20  # a piece of a file, or a screenshot


class WireError(Exception):
    """The other end does not speak as agreed."""


class Request(NamedTuple):
    """Do `op`. Its answers carry the same id."""

    id: int
    op: str
    args: Mapping[str, Any]
    body: bytes | None = None


class Cancel(NamedTuple):
    """Stop working on a request; it is answered all the same."""

    id: int


class Answer(NamedTuple):
    """The result of a request; with `more`, a piece of it, and others follow."""

    id: int
    value: Any = None
    body: bytes | None = None
    more: bool = False


class Failure(NamedTuple):
    """Why there is no result. `code`: VirtualBox's own result code, 0 if the error is not its."""

    id: int
    kind: str
    text: str
    code: int = 0


Message = Union[Request, Cancel, Answer, Failure]
_KINDS = {"request": Request, "cancel": Cancel, "answer": Answer, "failure": Failure}
_WORDS = {kind: word for word, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    fields = dict(message._asdict())
    body = fields.pop("body", None)
    head = {"is": _WORDS[type(message)], "bytes": None if body is None else len(body), **fields}
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + (body or b"")


class Decoder:
    """Push bytes with `feed`; it yields whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Mapping[str, Any] | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes in.

        Raises:
            WireError: they are no message; the conversation is over.
        """
        self._buffer += data
        while True:
            message = self._next()
            if message is None:
                return
            yield message

    def _next(self) -> Message | None:
        if self._head is None:
            self._head = self._line()
            if self._head is None:
                return None
        size = self._head["bytes"]
        if size is not None and len(self._buffer) < size:
            return None
        head, self._head = self._head, None
        body = None if size is None else bytes(self._buffer[:size])
        del self._buffer[: size or 0]
        return _message(head, body)

    def _line(self) -> Mapping[str, Any] | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                raise WireError(f"a line of more than {MAX_LINE} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _head(line)


def _head(line: bytes) -> Mapping[str, Any]:
    try:
        head = json.loads(line)
    except ValueError:
        raise WireError(f"no message: {line[:200]!r}") from None
    if not isinstance(head, dict) or head.get("is") not in _KINDS:
        raise WireError(f"no message: {line[:200]!r}")
    size = head.setdefault("bytes", -1)
    if size is not None and not (isinstance(size, int) and 0 <= size <= MAX_BODY):
        raise WireError(f"a body of {size!r} bytes")
    return head


def _message(head: Mapping[str, Any], body: bytes | None) -> Message:
    fields = {key: value for key, value in head.items() if key not in ("is", "bytes")}
    if body is not None:
        fields["body"] = body
    try:
        made: Message = _KINDS[head["is"]](**fields)
    except TypeError as err:
        raise WireError("a strange {}: {}".format(head["is"], err)) from None
    return made
