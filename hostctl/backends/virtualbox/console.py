"""The console of a machine that runs: its first serial line, from the log to us and back.

A line ends either in a file, which never holds up the guest, or in a socket, where a guest waits
for whoever reads. So the console is logged while nobody is there. While somebody is, what the guest
says passes through here, and into the log as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from hostctl_channels.errors import ChannelClosed, PortHeld
from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.links.stream import UnixEndpoint

from ...errors import BackendError
from .driver import UartPlan

__all__ = ["ConsoleEndpoint", "is_abandoned"]

OPEN_S: Final = 5.0
LOOK_S: Final = 0.02

Connect = Callable[[UartPlan], Awaitable[None]]


class ConsoleEndpoint:
    """See Endpoint. One client at a time."""

    def __init__(self, connect: Connect, socket: Path, log: Path, lock: Path) -> None:
        self._connect = connect
        self._socket = socket
        self._log = log
        self._lock = lock
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self) -> Link:
        """See Endpoint."""
        holder = _take(self._lock)
        try:
            await self._connect(UartPlan(0, "pipe", str(self._socket)))
            link = await self._reach()
        except (BackendError, TimeoutError) as err:
            holder.close(done=True)
            raise ChannelClosed(f"the console cannot be reached: {err}") from err
        except BaseException:
            holder.close()
            raise
        return LoggedLink(link, self._log, lambda: self._leave(holder))

    async def close(self) -> None:
        """Wait until lines that were closed end in the log again."""
        while self._leaving:
            await asyncio.gather(*self._leaving)

    async def _reach(self) -> Link:
        endpoint = UnixEndpoint(self._socket)
        async with asyncio.timeout(OPEN_S):
            while True:
                try:
                    return await endpoint.open()
                except ChannelClosed:  # VirtualBox is still at it
                    await asyncio.sleep(LOOK_S)

    def _leave(self, holder: _Holder) -> None:
        task = asyncio.ensure_future(self._return(holder))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _return(self, holder: _Holder) -> None:
        # A machine that ended meanwhile has no line to lead back.
        with contextlib.suppress(BackendError):
            await self._connect(UartPlan(0, "file", str(self._log)))
        holder.close(done=True)


class LoggedLink:
    """A link whose incoming bytes are appended to a file, too."""

    def __init__(self, link: Link, log: Path, leave: Callable[[], None]) -> None:
        self._link = link
        self._log = log.open("ab", buffering=0)
        self._leave: Callable[[], None] | None = leave

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        size = await self._link.receive_into(buffer)
        self._log.write(memoryview(buffer)[:size])
        return size

    async def send(self, data: Buffer) -> None:
        """See Link."""
        await self._link.send(data)

    def close(self) -> None:
        """See Link."""
        leave, self._leave = self._leave, None
        self._link.close()
        self._log.close()
        if leave is not None:
            leave()


class _Holder:
    """The console, held; the file stays behind when its holder is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise

    def close(self, *, done: bool = False) -> None:
        if done:
            self._path.unlink(missing_ok=True)
        self._file.close()


def is_abandoned(lock: Path) -> bool:
    """Tell whether whoever had the console was killed: the guest may wait for a reader."""
    if not lock.exists():
        return False
    try:
        _Holder(lock).close()
    except OSError:
        return False
    return True


def _take(lock: Path) -> _Holder:
    try:
        return _Holder(lock)
    except BlockingIOError:
        raise PortHeld("console") from None
    except OSError as err:
        raise ChannelClosed(f"the console cannot be reached: {err}") from err
