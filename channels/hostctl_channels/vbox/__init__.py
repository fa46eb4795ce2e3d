"""Commands and files through VirtualBox's guest control, for guests with the Guest Additions.

What it cannot do as our agent does is in docs/how-to/virtualbox.md.
"""

from __future__ import annotations

from .channel import VboxChannel
from .control import Controlling, GuestControl, Node, Piece, Session

__all__ = ["Controlling", "GuestControl", "Node", "Piece", "Session", "VboxChannel"]
