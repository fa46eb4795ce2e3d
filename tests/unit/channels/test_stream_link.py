"""Unix sockets: a server that serves one client at a time, as QEMU's chardevs do."""

import asyncio
import socket
from pathlib import Path

import pytest

from hostctl_channels.errors import ChannelClosed, PortHeld
from hostctl_channels.links.stream import open_unix


async def test_a_full_queue_is_waited_for_and_told(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        first = await open_unix(path)
        with pytest.raises(PortHeld, match="another client"):
            await open_unix(path)
        waiting = asyncio.ensure_future(open_unix(path))
        await asyncio.sleep(0.05)
        server.accept()[0].close()
        (await waiting).close()
        first.close()


async def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChannelClosed, match="no line at"):
        await open_unix(tmp_path / "port")
