"""What the guest has said and QEMU has not passed on: a saved moment must hold none of it.

When the reader of a port is behind, QEMU keeps a buffer of the guest's queue, and writes that down
with the moment. On loading it (7.2: virtio_load, fetch_active_ports_list) it passes the buffer on
before it has read where the queue's rings lie, and so writes into the guest's memory at random:
every such restore left a dead guest (docs/decisions/0014).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

from ...errors import MonitorError, OutputWaits
from .backend import NAMES
from .monitor import Monitor

__all__ = ["let_out"]

logger = logging.getLogger(__name__)

LET_OUT_S: Final = 3.0  # a reader that is only slow has read on by then
POLL_S: Final = 0.02
DEVICE: Final = "/machine/peripheral/vser0/virtio-backend"


async def let_out(qmp: Monitor, limit_s: float = LET_OUT_S) -> None:
    """Wait, while the guest is stopped, until the readers of its ports have all that it said.

    Raises:
        OutputWaits: somebody does not read, or has hung up before: what he has not read waits
            until the guest says more at that port.
    """
    end = time.monotonic() + limit_s
    while waiting := [port async for port in _behind(qmp)]:
        if time.monotonic() > end or not all(is_read for _, is_read in waiting):
            raise OutputWaits(waiting[0][0])
        await asyncio.sleep(POLL_S)


async def _behind(qmp: Monitor) -> AsyncIterator[tuple[str, bool]]:
    """Yield the ports whose output is not all out, and whether anybody is there to read it."""
    for chardev in await qmp.execute("query-chardev"):
        number = chardev["label"].removeprefix("port")
        if number.isdigit() and await _is_kept(qmp, 2 * int(number) + 3):
            is_read = not chardev["filename"].startswith("disconnected:")
            yield NAMES[int(number) - 1], is_read


async def _is_kept(qmp: Monitor, queue: int) -> bool:
    """Tell whether QEMU keeps a buffer of a queue; port n's output is queue 2n + 3 (virtio 1.1,
    5.3.2).
    """
    try:
        status = await qmp.execute("x-query-virtio-queue-status", {"path": DEVICE, "queue": queue})
    except MonitorError as err:
        if "has not been found" not in err.reason:
            raise
        logger.debug("this QEMU does not tell of queues: %s", err)  # x-: it may go any time
        return False
    return bool(status["inuse"])
