"""Connections to a socket of this host, carried to a socket in a guest that has no network.

Owns the listening socket, which is this host's loopback or a path, and nobody else's; what carries
one connection is the channel's. A guest cannot open a connection to here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from hostctl_channels.dial import GuestSocket, Target, dial

from .errors import BackendError, ConfigError, HostctlError, LocalProtocolError, PortsBusy

if TYPE_CHECKING:
    from hostctl_channels.interface import Channel

__all__ = ["Forward", "Trouble", "forwarding"]

logger = logging.getLogger(__name__)

Trouble: TypeAlias = Callable[[Exception], None]
"""Called when one connection could not be made, or was cut; the others go on."""

LOOPBACK: Final = "127.0.0.1"
WAIT_S: Final = 20.0  # for one of the others to end
_CHUNK: Final = 1 << 20  # each costs the guest a fork
_BACKLOG: Final = 64


class Forward:
    """A socket that listens here. Comes from `Machine.forward`, which also closes it."""

    def __init__(self, address: tuple[str, int] | Path, target: Target) -> None:
        self.address = address
        self.target = target
        self.connections = 0  # that are carried now

    def __str__(self) -> str:
        if isinstance(self.address, Path):
            return str(self.address)
        host, port = self.address
        return f"{host}:{port}"


@contextlib.asynccontextmanager
async def forwarding(
    reach: Callable[[], Awaitable[Channel]],
    local: int | str | os.PathLike[str],
    guest: int | str,
    max_connections: int,
    trouble: Trouble | None,
) -> AsyncIterator[Forward]:
    """See Machine.forward."""
    target = parse_target(guest)
    if max_connections < 1:
        raise ConfigError(f"cannot forward {max_connections} connections; 1 is least")
    await reach()  # a machine that does not run is told before we listen
    with _listening(local) as (listener, address):
        forward = Forward(address, target)
        carrier = _Carrier(reach, forward, max_connections, trouble or _log)
        server = asyncio.create_task(carrier.serve(listener))
        try:
            yield forward
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)


def parse_target(guest: int | str) -> Target:
    """Read PORT, HOST:PORT or /PATH. Raises ConfigError."""
    text = str(guest)
    try:
        if text.startswith("/"):
            return Target(path=text)
        host, colon, port = text.rpartition(":")
        where = {"host": host.strip("[]")} if colon else {}
        return Target(int(port) if port.isdecimal() else 0, **where)
    except LocalProtocolError as err:
        raise ConfigError(
            f"cannot forward to {text!r}", hint="write PORT, HOST:PORT or /PATH of the guest"
        ) from err


class _Carrier:
    """Takes connections, and carries each in a task of its own."""

    def __init__(
        self,
        reach: Callable[[], Awaitable[Channel]],
        forward: Forward,
        max_connections: int,
        trouble: Trouble,
    ) -> None:
        self._reach = reach
        self._forward = forward
        self._room = asyncio.Semaphore(max_connections)
        self._trouble = trouble

    async def serve(self, listener: socket.socket) -> None:
        """Take connections until cancelled, which ends them all."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as err:  # out of descriptors, say
                    self._trouble(err)
                    await asyncio.sleep(1)
                else:
                    tasks.create_task(self._carry(connection))

    async def _carry(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_CHUNK)
        try:
            async with self._admitted():
                await _join(await self._reach(), self._forward.target, reader, writer)
        except (HostctlError, OSError) as err:
            if not isinstance(err, ConnectionError):  # the client left, which is its right
                self._trouble(err)
            writer.transport.abort()
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._room.acquire()
        except TimeoutError as err:
            open_ = self._forward.connections
            raise PortsBusy(
                f"{self._forward}: {open_} connections are open, one more was refused",
                hint="each takes ports of the machine; close one",
            ) from err
        self._forward.connections += 1
        try:
            yield
        finally:
            self._forward.connections -= 1
            self._room.release()


async def _join(
    channel: Channel, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes both ways, and the end of each way, until both have ended or one side is gone."""
    async with dial(channel, target) as guest:
        sending = asyncio.create_task(_send(reader, guest))
        try:
            while (data := await guest.read()) is not None:
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            if guest.is_open:
                await _either(sending, guest.wait_closed())
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(reader: asyncio.StreamReader, guest: GuestSocket) -> None:
    while data := await reader.read(_CHUNK):
        await guest.write(data)
    await guest.write_eof()


async def _either(sending: asyncio.Task[None], closed: Awaitable[None]) -> None:
    ended = asyncio.ensure_future(closed)
    try:
        await asyncio.wait((sending, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


@contextlib.contextmanager
def _listening(
    local: int | str | os.PathLike[str],
) -> Iterator[tuple[socket.socket, tuple[str, int] | Path]]:
    if isinstance(local, int):
        with _bound(socket.AF_INET, (LOOPBACK, local), f"{LOOPBACK}:{local}") as listener:
            yield listener, (LOOPBACK, listener.getsockname()[1])
        return
    path = Path(local).absolute()
    _remove_stale(path)
    with _bound(socket.AF_UNIX, os.fspath(path), str(path)) as listener:
        mine = path.stat().st_ino
        try:
            yield listener, path
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == mine:
                    path.unlink()


@contextlib.contextmanager
def _bound(
    family: socket.AddressFamily, address: tuple[str, int] | str, shown: str
) -> Iterator[socket.socket]:
    with socket.socket(family) as listener:
        listener.setblocking(False)
        if family is socket.AF_INET:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except (OSError, OverflowError) as err:
            raise _cannot_listen(shown, err) from err
        if isinstance(address, str):
            os.chmod(address, 0o600)  # before anybody can connect
        listener.listen(_BACKLOG)
        yield listener


def _cannot_listen(shown: str, err: OSError | OverflowError) -> HostctlError:
    number = err.errno if isinstance(err, OSError) else None
    if number == errno.EADDRINUSE:
        return BackendError(
            f"cannot listen on {shown}: it is in use", hint="take another, or port 0 for any"
        )
    if number is None:  # a port above 65535, a path above 107 bytes
        return ConfigError(f"cannot listen on {shown}: {err}")
    return BackendError(f"cannot listen on {shown}: {os.strerror(number).lower()}")


def _remove_stale(path: Path) -> None:
    """Remove a socket on which nobody listens: what a killed hostctl left."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return


def _log(error: Exception) -> None:
    logger.warning("forward: %s", error)
