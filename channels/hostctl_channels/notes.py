"""What a text of ours tells the host from inside a guest: lines among its standard error, marked by
a secret, so that nothing that a command prints is taken for one.

Owns the marks and their limits; what a note means is its reader's, who checks it.
"""

from __future__ import annotations

import secrets
from typing import Final

from .errors import Refused, RemoteProtocolError
from .interface import Capability, Channel

__all__ = ["MAX_NOTE", "Notes", "begun", "need_live"]

MAX_NOTE: Final = 1024
_CONNECT_S: Final = 20.0


async def need_live(channel: Channel, what: str) -> None:
    """Raise Refused unless the channel has live streams and standard input."""
    if not channel.capabilities:
        await channel.connect(_CONNECT_S)
    lacking = {Capability.STREAMS, Capability.STDIN} - channel.capabilities
    if lacking:
        raise Refused(
            f"{what} needs a channel with live streams and input",
            min(lacking).value,
            hint="hostctl caps tells the ways into the guest, hostctl attach brings the agent",
        )


class Notes:
    """The notes of one request: `TOKEN KIND VALUE` on a line. Of each kind the first one counts."""

    def __init__(self) -> None:
        # Its first byte is one that hardly any output ends with: that would be held back.
        self.token = b"\x01" + secrets.token_hex(16).encode()
        self._held = b""
        self._found: dict[bytes, bytes] = {}

    def get(self, kind: str) -> bytes:
        """Return the value of a note, unchecked, or nothing."""
        return self._found.get(kind.encode(), b"")

    def feed(self, data: bytes) -> bytes:
        """Take the notes out; return the rest. Only what may be a note's begin is held back.

        Raises:
            RemoteProtocolError: a note has no end.
        """
        text, rest = b"", self._held + data
        while (at := rest.find(self.token)) >= 0:
            line, newline, after = rest[at:].partition(b"\n")
            if len(line) > MAX_NOTE:
                raise RemoteProtocolError("the guest tells of its command without end")
            if not newline:
                self._held = line
                return text + rest[:at]
            self._note(line)
            text, rest = text + rest[:at], after
        keep = begun(self.token, rest)
        self._held = rest[len(rest) - keep :]
        return text + rest[: len(rest) - keep]

    def _note(self, line: bytes) -> None:
        _, _, said = line.partition(b" ")
        kind, _, value = said.partition(b" ")
        if len(self._found) < 16:
            self._found.setdefault(kind, value)


def begun(token: bytes, data: bytes) -> int:
    """Return how many last bytes of `data` may be a token's first."""
    longest = min(len(data), len(token) - 1)
    return next((n for n in range(longest, 0, -1) if data.endswith(token[:n])), 0)
