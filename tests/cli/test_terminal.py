"""Our own terminal: the keys that are ours, and what is undone."""

import contextlib
import os
import pty
import termios

import pytest

from hostctl.cli import terminal
from hostctl.cli.terminal import Escape, Screen

from .descriptors import stdin_from


@pytest.mark.parametrize(
    ("typed", "sent", "left"),
    [
        (b"~.", b"", True),
        (b"ls\r~.", b"ls\r", True),
        (b"ls\n~.never", b"ls\n", True),
        (b"a~.", b"a~.", False),
        (b"~~.", b"~.", False),
        (b"~~\r~.", b"~\r", True),
        (b"~x~.", b"~x~.", False),
        (b"~\r~.", b"~\r", True),
        (b"~?~.", b"", True),
        (b"\xff\x03\r", b"\xff\x03\r", False),
    ],
)
def test_escapes_stand_at_the_begin_of_a_line(typed: bytes, sent: bytes, left: bool) -> None:
    whole = Escape()
    assert (whole.feed(typed), whole.is_left) == (sent, left)
    cut = Escape()
    assert b"".join(cut.feed(bytes([key])) for key in typed) == sent
    assert cut.is_left is left


def test_help_is_asked_for_once() -> None:
    escape = Escape()
    escape.feed(b"~?")
    assert escape.wants_help
    assert (escape.feed(b"x"), escape.wants_help) == (b"x", False)


@pytest.mark.parametrize(
    ("shown", "undone"),
    [
        (b"plain \x1b[1mtext", b""),
        (b"\x1b[?1049h\x1b[?25lvim\x1b[?25h\x1b[?1049l", b""),
        (b"\x1b[?1049hvi", b"\x1b[?1049l\x1b[0m"),
        (b"\x1b[?1000;1006h\x1b[?25l", b"\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[0m"),
        (b"\x1b[?7h\x1b[?999999999h", b""),
    ],
)
def test_what_the_guest_has_set_is_undone(shown: bytes, undone: bytes) -> None:
    whole, cut = Screen(), Screen()
    whole.watch(shown)
    for byte in shown:
        cut.watch(bytes([byte]))
    assert whole.undo() == cut.undo() == undone
    assert whole.undo() == b""


def test_a_sequence_without_end_is_not_kept() -> None:
    screen = Screen()
    for _ in range(1000):
        screen.watch(b"\x1b[?" + b"1" * 1000)
    assert len(screen._tail) <= 40


def test_the_terminal_is_put_back_after_an_error() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with stdin_from(slave):
        with contextlib.suppress(ZeroDivisionError), terminal.raw():
            assert not termios.tcgetattr(slave)[3] & termios.ICANON
            raise ZeroDivisionError
        with terminal.raw(False):
            assert termios.tcgetattr(slave)[3] & termios.ICANON
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
