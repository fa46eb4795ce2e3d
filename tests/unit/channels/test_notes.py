"""Notes among standard error: taken out whole, however they are cut, and bounded."""

import pytest

from hostctl_channels.errors import RemoteProtocolError
from hostctl_channels.notes import MAX_NOTE, Notes


def test_notes_are_taken_out_and_nothing_else_is_held() -> None:
    notes = Notes()
    said = b"before" + notes.token + b" tool script\nprompt> "
    assert notes.feed(said) == b"beforeprompt> "
    assert notes.get("tool") == b"script"
    assert notes.get("tty") == b""


def test_notes_may_be_cut_anywhere() -> None:
    said = b"a %s tty /dev/pts/0\nb%s exit 3\nz"
    notes = Notes()
    said = said % (notes.token, notes.token)
    assert b"".join(notes.feed(said[at : at + 1]) for at in range(len(said))) == b"a bz"
    assert (notes.get("tty"), notes.get("exit")) == (b"/dev/pts/0", b"3")


def test_the_first_word_counts() -> None:
    notes = Notes()
    notes.feed(b"%s exit 1\n%s exit 2\n" % (notes.token, notes.token))
    assert notes.get("exit") == b"1"


def test_anothers_token_is_text() -> None:
    notes = Notes()
    said = Notes().token + b" tool script\n"
    assert notes.feed(said) + notes.feed(b".") == said + b"."
    assert notes.get("tool") == b""


def test_a_note_without_end_is_refused() -> None:
    notes = Notes()
    with pytest.raises(RemoteProtocolError, match="without end"):
        notes.feed(notes.token + b"x" * MAX_NOTE)


def test_kinds_without_end_are_not_kept() -> None:
    notes = Notes()
    for number in range(1000):
        notes.feed(b"%s kind%d x\n" % (notes.token, number))
    assert notes.get("kind999") == b""


def test_a_byte_that_people_print_is_never_held_back() -> None:
    notes = Notes()
    for byte in (bytes((number,)) for number in range(9, 127)):
        assert notes.feed(byte) == byte
