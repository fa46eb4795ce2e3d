"""Every byte of the wire, declared once with construct.

docs/PROTOCOL.md has the same section numbers.

Host → guest: a printable line that the `read` builtin of a POSIX shell takes, then a counted body.
Guest → host: a binary header that `printf` emits, then a body, counted or ended by the request's
nonce.
"""

from __future__ import annotations

import re
from typing import Final

from construct import (
    Adapter,
    Bytes,
    Const,
    Construct,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    NullTerminated,
    Struct,
)

__all__ = [
    "DONE",
    "ERROR",
    "EXIT",
    "HEADER",
    "HELLO",
    "LINE",
    "MAGIC",
    "MAX_BODY",
    "MAX_ENTROPY",
    "MAX_LINE",
    "MAX_STDIN",
    "MAX_WORDS",
    "NO_NONCE",
    "VERSION",
]

VERSION: Final = 1

# 1. Limits, each with its reason
# Bytes of words in a line: a shell reads a byte per system call, 12-15 us each under emulation.
MAX_LINE: Final = 1024
# Bytes of words in a body: above the 128 KiB Linux takes for one argument, and bounded.
MAX_WORDS: Final = 1 << 20
# One frame of standard input: each costs a fork (10 ms under emulation), and is held whole.
MAX_STDIN: Final = 1 << 20
# What feeds the random pool, held whole too; the pool's own state is 32 bytes.
MAX_ENTROPY: Final = 1 << 16
# Guest → host, by kind: what the agent can say, and a flood cannot make us keep more
MAX_BODY: Final = {
    b"R": 0,
    b"H": 1024,
    b"P": 0,
    b"S": 0,
    b"B": 0,
    b"X": 15,
    b"D": 512,
    b"E": 1024,
}
# Hex digits, 64 random bits: what no file and no earlier request contains by chance
NONCE_SIZE: Final = 16
NO_NONCE: Final = b"0" * NONCE_SIZE


# 2. Host → guest: KIND SP NONCE SP LENGTH SP WORDS LF
class _Decimal(Adapter):  # type: ignore[type-arg]  # the stubs leave it generic over Any
    def _decode(self, obj: bytes, context: object, path: str) -> int:
        if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", obj):
            raise ValueError("not a length")
        return int(obj)

    def _encode(self, obj: int, context: object, path: str) -> bytes:
        return b"%d" % obj


_BARE = rb"[A-Za-z0-9_./:=@%+,-]+"  # what no shell takes for anything but itself
_PIECE = rb"'[^'\n]*'|\\'|\"\$N\""  # quoted text, a quote, a newline
_is_bare = re.compile(_BARE).fullmatch
_WORD = re.compile(rb"%s|(?:%s)+" % (_BARE, _PIECE))


class _Words(Adapter):  # type: ignore[type-arg]  # the stubs leave it generic over Any
    r"""Words as a shell writes them.

    Bare, or 'text' with ' as '\'' and a newline as '"$N"'. Safe to `eval`, easy to parse.
    """

    def _encode(self, obj: tuple[bytes, ...], context: object, path: str) -> bytes:
        return b" ".join(map(quote, obj))

    def _decode(self, obj: bytes, context: object, path: str) -> tuple[bytes, ...]:
        return unquote(obj)


def quote(word: bytes) -> bytes:
    """Write one word, which holds no NUL, as a shell reads it: bare where that is safe."""
    if _is_bare(word):
        return word
    return b"'" + word.replace(b"'", b"'\\''").replace(b"\n", b"'\"$N\"'") + b"'"


def unquote(text: bytes) -> tuple[bytes, ...]:
    """Read words back. Raises ValueError on anything `quote` does not write."""
    return tuple(map(_plain, _split(text)))


def _split(text: bytes) -> list[bytes]:
    at, words = 0, []
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None or text[match.end() : match.end() + 1] not in (b"", b" "):
            raise ValueError("not a list of words")
        words.append(match.group())
        at = match.end() + 1
    return words


def _plain(word: bytes) -> bytes:
    pieces = re.findall(_PIECE, word)
    return b"".join(_PLAIN.get(piece) or piece[1:-1] for piece in pieces) if pieces else word


_PLAIN: Final = {b"\\'": b"'", b'"$N"': b"\n"}


def _field(term: bytes) -> Construct[bytes, bytes]:
    return NullTerminated(GreedyBytes, term=term)


LINE: Final = Struct(
    "kind" / Bytes(1),
    Const(b" "),
    "nonce" / Bytes(NONCE_SIZE),
    Const(b" "),
    "length" / _Decimal(_field(b" ")),
    "words" / _Words(_field(b"\n")),
)

# 3. Guest → host
MAGIC: Final = b"\x9dH"  # begins no UTF-8 text and no shell output

HEADER: Final = Struct(
    "magic" / Const(MAGIC),
    "kind" / Bytes(1),
    "stream" / Int8ub,
    "nonce" / Bytes(NONCE_SIZE),
    "length" / Int32ub,
)

HELLO: Final = Struct("version" / Int8ub, "features" / GreedyBytes)
EXIT: Final = Struct(
    "code" / Int8ub,
    "signal" / Int8ub,
    "flags" / Int8ub,  # 1 timed out, 2 times are known
    "user_ms" / Int32ub,
    "system_ms" / Int32ub,
    "max_rss_kib" / Int32ub,  # 0: unknown
)
DONE: Final = Struct("facts" / GreedyBytes)  # name=value words; see messages.Done
ERROR: Final = Struct("errno" / Int16ub, "text" / GreedyBytes)
