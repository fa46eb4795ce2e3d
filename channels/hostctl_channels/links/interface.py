"""What a link is, and where one begins."""

from __future__ import annotations

from typing import Protocol

from ..interface import Buffer

__all__ = ["Endpoint", "Link"]


class Link(Protocol):
    """A byte stream to one port, in order.

    Loss shows only as an end; one reader and one writer at a time.
    """

    async def receive_into(self, buffer: bytearray) -> int:
        """Wait for bytes; return how many now lie at the buffer's beginning, 0 at the end of the
        stream.

        Raises:
            ChannelClosed: the line broke.
        """

    async def send(self, data: Buffer) -> None:
        """Send all of it; waits while the far end is full.

        After cancellation an unknown part was sent.

        Raises:
            ChannelClosed: the line broke.
        """

    def close(self) -> None:
        """Close at once, waking who waits. Safe to call twice."""


class Endpoint(Protocol):
    """The host's side of one port: what a link is opened from, again and again."""

    async def open(self) -> Link:
        """Connect.

        Raises:
            ChannelClosed: nobody is there.
            PortHeld: somebody else has the line, and it serves one at a time.
        """
