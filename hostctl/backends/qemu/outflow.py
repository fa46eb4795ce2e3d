"""What the guest has said and QEMU has not passed on: a saved moment must hold none of it.

When the reader of a port is behind, QEMU keeps a buffer of the guest's queue, and writes that down
with the moment. On loading it (7.2: virtio_load, fetch_active_ports_list) it passes the buffer on
before it has read where the queue's rings lie, and so writes into the guest's memory at random:
every such restore left a dead guest (docs/decisions/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from typing import Final

from hostctl_channels.errors import ChannelClosed, PortHeld
from hostctl_channels.links.stream import open_unix
from hostctl_channels.ports import suffix

from ...errors import MonitorError, OutputWaits
from ...state import MachineFiles
from .backend import NAMES
from .monitor import Monitor

__all__ = ["let_out"]

logger = logging.getLogger(__name__)

LET_OUT_S: Final = 3.0  # a reader that is only slow has read on by then
POLL_S: Final = 0.02
# What the bus of virtio-serial tells of a port, after its properties (virtser_bus_dev_print). A
# throttled one keeps a buffer; the numbers of its queue tell less, for one that was dropped when a
# reader hung up is missing there for ever.
BEHIND: Final = re.compile(r'name = "([^"]*)"\s+port \d+, guest \w+, host (\w+), throttle on')


async def let_out(qmp: Monitor, files: MachineFiles, limit_s: float = LET_OUT_S) -> None:
    """Wait, while the guest is stopped, until the readers of its ports have all that it said.

    What was said to a reader who hung up is dropped.

    Raises:
        OutputWaits: somebody does not read.
    """
    end, calm = time.monotonic() + limit_s, 0
    while calm < 2:  # between two looks QEMU does what it has put off
        behind = BEHIND.findall(await _buses(qmp))
        calm = 0 if behind else calm + 1
        if behind and time.monotonic() > end:
            raise OutputWaits(behind[0][0])
        for name, host in behind:
            if host == "off" and name in NAMES:
                await _hang_up(files, name)
        await asyncio.sleep(POLL_S if behind else 0)


async def _buses(qmp: Monitor) -> str:
    try:
        text = await qmp.execute("human-monitor-command", {"command-line": "info qtree"})
    except MonitorError as err:
        if "has not been found" not in err.reason:
            raise
        logger.debug("this QEMU does not tell of ports: %s", err)  # it may be built without
        return ""
    return str(text)


async def _hang_up(files: MachineFiles, name: str) -> None:
    """Hang up once more: QEMU drops what nobody reads when it sees that, and may have missed it."""
    with contextlib.suppress(ChannelClosed, PortHeld):
        (await open_unix(files.socket(suffix(name)))).close()
