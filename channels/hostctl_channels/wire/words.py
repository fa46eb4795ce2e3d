r"""Words as a shell writes them, safe to `eval` and easy to parse; docs/PROTOCOL.md section 2.

Bare, or 'text' with ' as '\'' and a newline as '"$N"'.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["quote", "unquote"]

_BARE: Final = rb"[A-Za-z0-9_./:=@%+,-]+"  # what no shell takes for anything but itself
_PIECE: Final = rb"'[^'\n]*'|\\'|\"\$N\""  # quoted text, a quote, a newline
_is_bare = re.compile(_BARE).fullmatch
_WORD: Final = rb"%s|(?:%s)+" % (_BARE, _PIECE)
_PLAIN: Final = {b"\\'": b"'", b'"$N"': b"\n"}


def quote(word: bytes) -> bytes:
    """Write one word, which holds no NUL, as a shell reads it: bare where that is safe."""
    if _is_bare(word):
        return word
    return b"'" + word.replace(b"'", b"'\\''").replace(b"\n", b"'\"$N\"'") + b"'"


def unquote(text: bytes) -> tuple[bytes, ...]:
    """Read words back. Raises ValueError on anything `quote` does not write."""
    return tuple(map(_plain, _split(text)))


def _split(text: bytes) -> list[bytes]:
    find, at, words = re.compile(_WORD).match, 0, []
    while at < len(text):
        match = find(text, at)
        if match is None or text[match.end() : match.end() + 1] not in (b"", b" "):
            raise ValueError("not a list of words")
        words.append(match.group())
        at = match.end() + 1
    return words


def _plain(word: bytes) -> bytes:
    pieces = re.findall(_PIECE, word)
    return b"".join(_PLAIN.get(piece) or piece[1:-1] for piece in pieces) if pieces else word
