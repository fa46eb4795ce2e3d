"""Every byte of the wire, declared once with construct.

docs/PROTOCOL.md has the same section numbers.

Host → guest: a printable line that the `read` builtin of a POSIX shell takes, then a counted body.
Guest → host: a binary header that `printf` emits, then a body, counted or ended by the request's
nonce.

This is the definition; what runs are the layouts derived from it (layout.py), and `words`, for
construct is slow to import and to parse. Tests hold both to it.
"""

from __future__ import annotations

import re
from typing import Final

from construct import (
    Adapter,
    Bytes,
    Const,
    Construct,
    FormatField,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    NullTerminated,
    Renamed,
    Struct,
)

from .limits import MAGIC, NONCE_SIZE, PING_SIZE
from .words import quote, unquote

__all__ = ["DONE", "ERROR", "EXIT", "HEADER", "HELLO", "LINE", "PING", "formats"]


# 2. Host → guest: KIND SP NONCE SP LENGTH SP WORDS LF
class _Decimal(Adapter):  # type: ignore[type-arg]  # the stubs leave it generic over Any
    def _decode(self, obj: bytes, context: object, path: str) -> int:
        if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", obj):
            raise ValueError("not a length")
        return int(obj)

    def _encode(self, obj: int, context: object, path: str) -> bytes:
        return b"%d" % obj


class _Words(Adapter):  # type: ignore[type-arg]  # the stubs leave it generic over Any
    def _encode(self, obj: tuple[bytes, ...], context: object, path: str) -> bytes:
        return b" ".join(map(quote, obj))

    def _decode(self, obj: bytes, context: object, path: str) -> tuple[bytes, ...]:
        return unquote(obj)


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

PING: Final = Struct(Const(b"N "), "nonce" / Bytes(PING_SIZE), Const(b"\n"))

# 3. Guest → host
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
    "flags" / Int8ub,  # 1 timed out, 2 times are known, 4 the streams stay open
    "user_ms" / Int32ub,
    "system_ms" / Int32ub,
    "max_rss_kib" / Int32ub,  # 0: unknown
)
DONE: Final = Struct("facts" / GreedyBytes)  # name=value words; see messages.Done
ERROR: Final = Struct("errno" / Int16ub, "text" / GreedyBytes)


def formats() -> dict[str, str]:
    """Derive what layout.FORMATS must hold."""
    named = {"HEADER": HEADER, "HELLO": HELLO, "EXIT": EXIT, "DONE": DONE, "ERROR": ERROR}
    return {name: ">" + "".join(map(_code, each.subcons)) for name, each in named.items()}


def _code(field: object) -> str:
    inner = field.subcon if isinstance(field, Renamed) else field
    if isinstance(inner, FormatField):
        return str(inner.fmtstr)[-1]
    if inner is GreedyBytes:
        return "+"
    assert isinstance(inner, Bytes | Const)
    return f"{inner.sizeof()}s"
