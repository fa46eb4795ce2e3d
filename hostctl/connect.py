"""Choose the channel of a machine. Today there is one kind: our agent over the virtio-serial ports.

Another kind (QEMU guest agent, a login on the console) is a further line here: they are tried in
order of what they can do, and the error says why each was passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostctl_channels.interface import Channel, Pulse
    from hostctl_channels.links.interface import Endpoint

__all__ = ["CHANNEL_NAME", "open_channel"]

CHANNEL_NAME = "hostctl agent over virtio-serial"


def open_channel(endpoints: Mapping[str, Endpoint], lock_dir: Path, pulse: Pulse) -> Channel:
    """Return the channel to a machine's guest, not connected yet; it does no I/O so far."""
    from hostctl_channels.agent_channel import AgentChannel
    from hostctl_channels.ports import PortPool

    return AgentChannel(PortPool(endpoints, lock_dir), pulse)
