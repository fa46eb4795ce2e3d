"""Links over stream sockets.

The Unix socket of a virtio-serial port, and either end of a socketpair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import ChannelClosed, PortHeld
from ..interface import Buffer

__all__ = ["SocketLink", "UnixEndpoint", "open_unix"]

# Both directions: the guest's ring holds 512 KiB, so a few of ours keep it full while Python is
# busy elsewhere.
_SOCKET_BUFFER = 1 << 20
# QEMU serves one client at a time, and lets two wait; one that has hung up goes in a millisecond.
_QUEUE_S = 1.0
_QUEUE_POLL_S = 0.005


class SocketLink:
    """A link over a connected stream socket, which it owns.

    Its reader stays registered with the loop from one receive to the next, and reads by itself: a
    short answer costs half of what it does with the loop's own `sock_recv_into`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        self._socket = sock
        self._is_closed = False
        self._sending = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # where the reader is registered
        self._reader: asyncio.Future[int] | None = None
        self._buffer: Buffer = b""  # the reader's
        self._unread = b""  # what a cancelled reader had received

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        if self._unread:
            return self._take_unread(buffer)
        with _translated():
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                return await self._readable(buffer)

    async def send(self, data: Buffer) -> None:
        """See Link."""
        self._sending += 1
        try:
            with _translated():
                view = memoryview(data).cast("B")
                if rest := view[self._send_now(view) :]:
                    await asyncio.get_running_loop().sock_sendall(self._socket, rest)
        finally:
            self._sending -= 1
            self._close_unused()

    def detach(self) -> socket.socket:
        """Return the socket, for another link to own; this one is of no more use."""
        self._unregister()
        self._is_closed = True
        return self._socket

    def close(self) -> None:
        """See Link."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who sends
        self._is_closed = True
        self._unregister()
        if self._reader and not self._reader.done():
            self._reader.set_result(0)
        self._close_unused()

    def _send_now(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def _readable(self, buffer: bytearray) -> int:
        loop = asyncio.get_running_loop()
        self._reader, self._buffer = loop.create_future(), buffer
        if self._loop is not loop:
            self._unregister()
            loop.add_reader(self._socket, self._read)
            self._loop = loop
        try:
            return await self._reader
        except asyncio.CancelledError:
            if self._reader.done() and not self._reader.cancelled():
                self._unread = bytes(buffer[: self._reader.result()])
            raise
        finally:
            self._reader, self._buffer = None, b""

    def _read(self) -> None:
        """Read for who waits; when nobody does, leave the bytes to the socket's own buffer."""
        reader = self._reader
        if reader is None or reader.done():
            self._unregister()
            return
        try:
            reader.set_result(self._socket.recv_into(self._buffer))
        except BlockingIOError:
            pass
        except OSError as err:
            reader.set_exception(err)

    def _take_unread(self, buffer: bytearray) -> int:
        size = min(len(buffer), len(self._unread))
        buffer[:size] = self._unread[:size]
        self._unread = self._unread[size:]
        return size

    def _unregister(self) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._loop = None

    def _close_unused(self) -> None:
        """Leave the descriptor open while somebody sends by it: the loop would never wake them."""
        if self._is_closed and not self._sending:
            self._socket.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise ChannelClosed(f"the line broke: {err}") from err


class UnixEndpoint:
    """A Unix socket, as an Endpoint."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self) -> SocketLink:
        """See Endpoint."""
        return await open_unix(self.path)


async def open_unix(path: Path) -> SocketLink:
    """Connect to a Unix socket.

    Raises:
        ChannelClosed: nobody listens there, or there is no such socket.
        PortHeld: others wait there to be let in, and nobody is.
    """
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        await _connected(sock, path)
    except OSError as err:
        sock.close()
        raise ChannelClosed(f"no line at {path}: {err.strerror or err}") from err
    except BaseException:
        sock.close()
        raise
    return SocketLink(sock)


async def _connected(sock: socket.socket, path: Path) -> None:
    """Connect at once, or when there is room in the queue: asyncio takes EAGAIN for a beginning."""
    end = time.monotonic() + _QUEUE_S
    while True:
        try:
            return sock.connect(os.fspath(path))
        except BlockingIOError:
            if time.monotonic() > end:
                raise PortHeld(f"{path} is held by another client") from None
        await asyncio.sleep(_QUEUE_POLL_S)
