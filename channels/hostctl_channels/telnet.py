"""Telnet as busybox's telnetd speaks it on a pipe: bytes with a 255 among them, and nothing more.

No I/O. Options are neither offered nor granted: telnetd does what is needed without an answer. When
its terminal ends it ends too, and drops what waits for a full pipe, some 2 KiB at most (its loop
returns when the pty has no more to read, whatever its buffer holds); so our session's last words
are a mark and filler.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from .notes import begun

__all__ = ["Telnet"]

IAC: Final = 255  # RFC 854: what follows is a command; 255 again is a byte of the data
_SE: Final = 240
_SB: Final = 250
_OPTIONS: Final = range(251, 255)  # WILL, WONT, DO, DONT: an option follows

_GREETING: Final = b"\r\r\n"  # before the issue, even of an empty file


class _State(Enum):
    DATA = auto()
    COMMAND = auto()
    OPTION = auto()
    SUB = auto()  # a subnegotiation: dropped up to its IAC SE
    SUB_COMMAND = auto()


class Telnet:
    """One connection. `decode` takes what telnetd says, `encode` makes what it understands.

    After the mark `end` all is filler. Its first byte should be one that data hardly ever ends
    with: what may be its begin is held back.
    """

    def __init__(self, end: bytes) -> None:
        self._end = end
        self._has_ended = False
        self._held = b""
        self._state = _State.DATA
        self._is_greeted = False
        self._begin = b""  # of what may be the greeting

    def encode(self, data: bytes) -> bytes:
        """Return `data` so that telnetd hands exactly it to the terminal."""
        data = data.replace(b"\xff", b"\xff\xff")
        # telnetd takes a CR and a LF or NUL after it for one CR, and drops the second byte.
        return re.sub(rb"\r(?=[\n\0])", b"\r\0", data)

    def decode(self, data: bytes) -> bytes:
        """Return the terminal's bytes among `data`; commands may be cut anywhere."""
        if self._state is not _State.DATA or IAC in data:
            data = bytes(byte for byte in data if self._is_data(byte))
        return self._before_end(data if self._is_greeted else self._greeted(data))

    def _before_end(self, data: bytes) -> bytes:
        if self._has_ended:
            return b""
        data, self._held = self._held + data, b""
        if (at := data.find(self._end)) >= 0:
            self._has_ended = True
            return data[:at]
        keep = begun(self._end, data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def _greeted(self, data: bytes) -> bytes:
        data, self._begin = self._begin + data, b""
        if len(data) < len(_GREETING) and _GREETING.startswith(data):
            self._begin = data
            return b""
        self._is_greeted = True
        return data.removeprefix(_GREETING)

    def _is_data(self, byte: int) -> bool:
        state, self._state = self._state, _State.DATA
        match state:
            case _State.DATA:
                if byte != IAC:
                    return True
                self._state = _State.COMMAND
            case _State.COMMAND:
                if byte == IAC:
                    return True
                if byte in _OPTIONS:
                    self._state = _State.OPTION
                elif byte == _SB:
                    self._state = _State.SUB
            case _State.OPTION:
                pass
            case _State.SUB:
                self._state = _State.SUB_COMMAND if byte == IAC else _State.SUB
            case _State.SUB_COMMAND:
                self._state = _State.DATA if byte == _SE else _State.SUB
        return False
