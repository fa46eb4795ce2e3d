"""Our own terminal, lent to a guest: raw and back again, its keys, its size, what it was told.

Owns what must be undone whatever ends us. Keys and text are bytes; nothing here waits.
"""

import contextlib
import os
import re
import termios
import tty
from collections.abc import Iterator
from typing import Final

__all__ = ["HELP", "Escape", "Screen", "raw", "window"]

HELP: Final = b"\r\n~.  leave\r\n~~  type ~\r\n~?  this text\r\n"
"""What `~?` shows."""

# Modes of xterm (its control sequences, "DEC Private Mode Set") that leave a terminal unusable when
# they stay: cursor keys, mouse in all its ways, focus, the other screen, bracketed paste.
_MODES: Final = (1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004)
_CURSOR: Final = 25  # the other way round: it stays hidden when it is reset
_MODE: Final = re.compile(rb"\x1b\[\?([\d;]{1,32})([hl])")
_LONGEST: Final = 40  # of such a sequence, which may be cut


@contextlib.contextmanager
def raw(wanted: bool = True) -> Iterator[None]:
    """Send each key at once, Ctrl-C too; put the terminal back in any case."""
    if not wanted or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)
    try:
        yield
    finally:
        # Not TCSADRAIN: it waits for a terminal that may not read any more.
        termios.tcsetattr(0, termios.TCSANOW, before)


def window() -> tuple[int, int]:
    """Return rows and columns of our terminal, 24 and 80 if there is none."""
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            if rows and columns:
                return rows, columns
    return 24, 80


class Escape:
    """Finds `~.` and `~?` at the begin of a line, as ssh has them; `~~` there is one `~`."""

    def __init__(self) -> None:
        self._at_begin = True
        self._held = False  # a ~ whose next key decides
        self.is_left = False
        self.wants_help = False

    def feed(self, keys: bytes) -> bytes:
        """Return the keys that are the guest's; `is_left` and `wants_help` tell of the others."""
        typed = bytearray()
        self.wants_help = False
        for key in keys:
            if self.is_left:
                break
            typed += self._key(key)
        return bytes(typed)

    def _key(self, key: int) -> bytes:
        held, self._held = self._held, False
        if held and key in b".?":
            self.is_left, self.wants_help = key == ord("."), key == ord("?")
            return b""
        if not held and self._at_begin and key == ord("~"):
            self._held = True
            return b""
        self._at_begin = key in b"\r\n"
        return b"~" + bytes([key]) if held and key != ord("~") else bytes([key])


class Screen:
    """Remembers which modes the guest has set, to undo those that it did not undo itself."""

    def __init__(self) -> None:
        self._tail = b""
        self._set: set[int] = set()

    def watch(self, text: bytes) -> None:
        """Look at what is shown."""
        text = self._tail + text
        end = 0
        for found in _MODE.finditer(text):
            end = found.end()
            for mode in (int(digits) for digits in found[1].split(b";") if digits):
                self._note(mode, is_on=found[2] == b"h")
        last = text.rfind(b"\x1b", max(end, len(text) - _LONGEST))
        self._tail = b"" if last < 0 else text[last:]

    def undo(self) -> bytes:
        """Return what puts the terminal back, nothing if nothing is left."""
        modes = b"".join(
            b"\x1b[?%d%c" % (mode, b"h" if mode == _CURSOR else b"l") for mode in sorted(self._set)
        )
        self._set.clear()
        return modes and modes + b"\x1b[0m"

    def _note(self, mode: int, *, is_on: bool) -> None:
        if mode in _MODES or mode == _CURSOR:
            (self._set.add if is_on is not (mode == _CURSOR) else self._set.discard)(mode)
