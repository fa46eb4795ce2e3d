"""Words and lines."""

import pytest
from construct import ConstructError

from hostctl_channels.wire.schema import LINE
from hostctl_channels.wire.words import quote, unquote

from .frames import NONCE

HARD = [
    b"",
    b"a",
    b" a  b ",
    b"it's",
    b"'",
    b"\n",
    b"a\n\nb\n",
    bytes(range(1, 256)),
    b"$N",
    b"\\'",
]


@pytest.mark.parametrize("word", HARD)
def test_a_word_survives(word: bytes) -> None:
    assert unquote(quote(word)) == (word,)


def test_a_safe_word_stands_bare() -> None:
    assert quote(b"/bin/ls") == b"/bin/ls"
    assert quote(b"a~") == b"'a~'"


def test_words_survive_together() -> None:
    assert unquote(b" ".join(map(quote, HARD))) == tuple(HARD)


def test_no_words_are_no_words() -> None:
    assert unquote(b"") == ()


@pytest.mark.parametrize(
    "text",
    [b"a;", b"'a' ' ", b"'a'b", b"'a'  'b'", b"a*", b"$(reboot)", b"'a';'b'", b"'\n'", b'"$X"'],
)
def test_what_we_would_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of words"):
        unquote(text)


@pytest.mark.parametrize("length", [b"", b"-1", b"01", b"1x", b"9" * 20])
def test_a_length_is_plain_decimal(length: bytes) -> None:
    with pytest.raises((ConstructError, ValueError)):
        LINE.parse(b"N " + NONCE + b" " + length + b" \n")
