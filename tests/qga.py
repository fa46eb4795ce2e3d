"""A real qemu-ga on this host, without a machine: it listens on a socket of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import GUEST_AGENT, PortPool
from hostctl_channels.qga import QgaChannel, SocketExchange

from .twin import StillPulse

BINARY = shutil.which("qemu-ga", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "qemu-ga"
READY_S = 20


class HostAgent:
    """A qemu-ga process and what it takes to reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "qga.sock"
        self.pulse = StillPulse()
        self.pid = 0

    def channel(self) -> QgaChannel:
        """Return a channel of its own, as another process would have."""
        ports = PortPool({GUEST_AGENT: UnixEndpoint(self.socket)}, self.folder)
        return QgaChannel(SocketExchange(ports, self.pulse), self.pulse)


@asynccontextmanager
async def host_agent(*options: str) -> AsyncIterator[HostAgent]:
    """Run qemu-ga with more options, until the context ends."""
    with tempfile.TemporaryDirectory(prefix="qga-") as name:
        agent = HostAgent(Path(name))
        words = [BINARY, "-m", "unix-listen", "-p", str(agent.socket), "-t", name, *options]
        # A user's qemu-ga.conf must not matter.
        config = Path(name, "qga.conf")
        config.write_text("[general]\n")
        environ = {**os.environ, "QGA_CONF": str(config), "LC_ALL": "C"}
        environ["HOSTCTL_JOBS"] = f"{name}/jobs"
        process = await asyncio.create_subprocess_exec(
            *words, env=environ, stdout=asyncio.subprocess.DEVNULL
        )
        agent.pid = process.pid
        try:
            async with asyncio.timeout(READY_S):
                while not _is_listening(agent.socket):  # noqa: ASYNC110 another process does
                    await asyncio.sleep(0.02)
            yield agent
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _is_listening(path: Path) -> bool:
    """Tell whether somebody listens, without being its one client: a socket is there before."""
    accepts = "00010000"  # linux/net.h: __SO_ACCEPTCON
    rows = Path("/proc/net/unix").read_text().splitlines()
    return any(row.endswith(str(path)) and row.split()[3] == accepts for row in rows)
