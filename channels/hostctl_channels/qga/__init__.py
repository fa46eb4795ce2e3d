"""Commands and files through the QEMU guest agent, for guests that have nothing of ours.

What it cannot do as our agent does is in docs/how-to/guest-agent.md.
"""

from __future__ import annotations

from .channel import QgaChannel
from .exchange import Exchange, Exchanging, SocketExchange

__all__ = ["Exchange", "Exchanging", "QgaChannel", "SocketExchange"]
