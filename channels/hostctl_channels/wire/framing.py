"""Bytes ↔ events. Data is never buffered, control always is, and both are bounded.

Frames run on the layouts derived from the declaration in schema.py; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..errors import LocalProtocolError, RemoteProtocolError
from .layout import HEADER
from .limits import MAGIC, MAX_BODY, MAX_LINE, MAX_STDIN, MAX_WORDS, NO_NONCE, PING_SIZE
from .messages import Begin, Data, End, Event, Hello, Ready, Request, parse
from .words import quote

__all__ = ["Decoder", "StreamDecoder", "encode", "encode_end", "encode_stdin"]


# --- host → guest -----------------------------------------------------------------------------


def encode(request: Request, nonce: bytes) -> tuple[bytes, ...]:
    """Return the buffers of a request, without its body.

    Words of an exec too long for a line become its body.

    Raises:
        LocalProtocolError: a word holds a NUL, or there are too many bytes of words.
    """
    if request.kind == b"N":
        return (b"N %s\n" % nonce[-PING_SIZE:],)
    text = b" ".join(map(quote, request.words))
    if b"\0" in text:
        raise LocalProtocolError("a request cannot hold a NUL byte")
    if len(text) > MAX_WORDS:
        raise LocalProtocolError(f"a request of {len(text)} bytes; the limit is {MAX_WORDS}")
    if len(text) > MAX_LINE and request.kind == b"X":
        return _line(b"X", nonce, len(text)), text
    return (_line(request.kind, nonce, request.length, text),)


def _line(kind: bytes, nonce: bytes, length: int = 0, text: bytes = b"") -> bytes:
    """Write what LINE declares, a hundred times as fast; a property test holds the two equal."""
    return b"%s %s %d %s\n" % (kind, nonce, length, text)


def encode_stdin(data: memoryview, nonce: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Cut standard input into frames: pairs of a line and a view, no copies."""
    for at in range(0, len(data), MAX_STDIN):
        piece = data[at : at + MAX_STDIN]
        yield _line(b"I", nonce, len(piece)), piece


def encode_end(nonce: bytes) -> bytes:
    """End standard input.

    Due exactly once per request that began it, after the exit at the latest.
    """
    return _line(b"E", nonce)


# --- guest → host -----------------------------------------------------------------------------


class _Search:
    """Looks for a byte string in buffers cut anywhere; holds back only what may begin it."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._held = b""

    def join(self, buffer: bytes | bytearray, size: int) -> tuple[bytes | bytearray, int]:
        """Put what was held back before the buffer.

        A copy, only when the last one ended like the text begins.
        """
        if not self._held:
            return buffer, size
        joined = self._held + buffer[:size]
        self._held = b""
        return joined, len(joined)

    @property
    def held(self) -> bytes:
        """What was held back."""
        return self._held

    def find(self, buffer: bytes | bytearray, at: int, size: int) -> tuple[int, int | None]:
        """Return where what precedes the text ends, and where what follows it begins, or None if it
        has not come.
        """
        found = buffer.find(self._text, at, size)
        if found >= 0:
            return found, found + len(self._text)
        tail = bytes(buffer[max(at, size - len(self._text) + 1) : size])
        keep = next((n for n in range(len(tail), 0, -1) if self._text.startswith(tail[-n:])), 0)
        self._held = tail[len(tail) - keep :]
        return size - keep, None


class StreamDecoder:
    """The bytes of one stream port: junk, the nonce, data, the nonce, junk.

    `begun` where the port stayed open since the last command: there is no junk and no first nonce.
    """

    def __init__(self, nonce: bytes, *, begun: bool = False) -> None:
        self._nonce = nonce
        self._search = _Search(nonce)
        self._released = 0  # of what the search holds back
        self.begun = begun
        self.ended = False

    @property
    def holds(self) -> bool:
        """True while data may be held back, because it may be the begin of the last nonce."""
        return self.begun and not self.ended and len(self._search.held) > self._released

    def release(self) -> bytes:
        """Return what is held back: nothing followed for so long that it is no part of a nonce."""
        data = self._search.held[self._released :]
        self._released += len(data)
        return data

    def feed(self, buffer: bytes | bytearray, size: int) -> Iterator[memoryview]:
        """Yield the data among the first `size` bytes.

        Each view dies at the next feed. To be consumed whole.

        Raises:
            RemoteProtocolError: what was released was the begin of the last nonce.
        """
        buffer, size = self._search.join(buffer, size)
        released, self._released = self._released, 0
        at: int | None = 0
        while at is not None and at < size and not self.ended:
            end, after = self._search.find(buffer, at, size)
            if after is not None and end < released:
                raise RemoteProtocolError("a stream paused in the middle of its end")
            if self.begun and end > max(at, released):
                yield memoryview(buffer)[max(at, released) : end]
            if after is not None:
                self.ended = self.begun
                self.begun = True
            else:
                self._released = max(0, released - end)
            at = after


class Decoder:
    """The frames of one port. Push bytes with `feed`; it yields events.

    Before the first greeting, and after `greet`, everything is junk up to the greeting that carries
    the nonce.
    """

    def __init__(self) -> None:
        self._nonce = self._greeting = NO_NONCE
        self._search: _Search | None = None
        self._junk = False
        self._control = (
            bytearray()
        )  # of a header and its body, at most 24 + the largest of MAX_BODY
        self._need = HEADER.size

    def greet(self, nonce: bytes) -> None:
        """Drop everything until the greeting with this nonce."""
        self._nonce = self._greeting = nonce
        self._search = _Search(MAGIC + b"H\0" + nonce)
        self._junk = True

    def expect(self, nonce: bytes) -> None:
        """Take answers to the request with this nonce from now on."""
        self._nonce = nonce

    def feed(self, buffer: bytes | bytearray, size: int) -> Iterator[Event]:
        """Yield the events in the first `size` bytes.

        To be consumed whole; views die at the next feed.

        Raises:
            RemoteProtocolError: the guest broke the protocol; the decoder is of no more use.
        """
        if self._search:
            buffer, size = self._search.join(buffer, size)
        at = 0
        while at < size:
            if self._search:
                at = yield from self._raw(self._search, buffer, at, size)
            else:
                taken = min(self._need - len(self._control), size - at)
                self._control += memoryview(buffer)[at : at + taken]
                at += taken
            if not self._search and len(self._control) == self._need:
                yield from self._frame()

    def _raw(
        self, search: _Search, buffer: bytes | bytearray, at: int, size: int
    ) -> Generator[Event, None, int]:
        end, after = search.find(buffer, at, size)
        if end > at and not self._junk:
            yield Data(memoryview(buffer)[at:end])
        if after is None:
            return size
        self._search = None
        if self._junk:
            self._junk = False
            self._control[:] = MAGIC + b"H\0" + self._greeting
            self._need = HEADER.size
        else:
            yield End()
        return after

    def _frame(self) -> Iterator[Event]:
        control = bytes(self._control)
        magic, kind, stream, nonce, length = HEADER.unpack_from(control)
        if magic != MAGIC or length > MAX_BODY.get(kind, -1):
            raise RemoteProtocolError(f"not a frame: {control[: HEADER.size]!r}")
        if len(control) < HEADER.size + length:
            self._need = HEADER.size + length
            return
        body = control[HEADER.size :]
        self._control.clear()
        self._need = HEADER.size
        event = parse(kind, stream, body)
        if self._ours(event, nonce):
            if isinstance(event, Begin):
                self._search = _Search(self._nonce)
            yield event

    def _ours(self, event: Event, nonce: bytes) -> bool:
        """Tell whether a frame answers the present request.

        The echo of a greeting sent twice does not matter.
        """
        if nonce == (NO_NONCE if isinstance(event, Ready) else self._nonce):
            return True
        if isinstance(event, Hello) and nonce == self._greeting:
            return False
        raise RemoteProtocolError("an answer to no question of ours")
