"""Two links that are each other's far end: a line without a guest, for tests of either side."""

from __future__ import annotations

import socket

from .stream import SocketLink

__all__ = ["open_pair"]


def open_pair() -> tuple[SocketLink, SocketLink]:
    """Return both ends of a line. The caller closes both."""
    ours, theirs = socket.socketpair()
    return SocketLink(ours), SocketLink(theirs)
