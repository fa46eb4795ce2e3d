"""Links over stream sockets.

The Unix socket of a virtio-serial port, and either end of a socketpair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import ChannelClosed
from ..interface import Buffer

__all__ = ["SocketLink", "open_unix"]

# Both directions: the guest's ring holds 512 KiB, so a few of ours keep it full while Python is
# busy elsewhere.
_SOCKET_BUFFER = 1 << 20


class SocketLink:
    """A link over a connected stream socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        self._socket = sock
        self._is_closed = False
        self._waiting = 0

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        with self._use():
            return await asyncio.get_running_loop().sock_recv_into(self._socket, buffer)

    async def send(self, data: Buffer) -> None:
        """See Link."""
        with self._use():
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def detach(self) -> socket.socket:
        """Return the socket, for another link to own; this one is of no more use."""
        self._is_closed = True
        return self._socket

    def close(self) -> None:
        """See Link."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits
        self._is_closed = True
        self._close_unused()

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        self._waiting += 1
        try:
            yield
        except OSError as err:
            raise ChannelClosed(f"the line broke: {err}") from err
        finally:
            self._waiting -= 1
            self._close_unused()

    def _close_unused(self) -> None:
        """Leave the descriptor open while somebody waits on it: the loop would never wake them."""
        if self._is_closed and not self._waiting:
            self._socket.close()


async def open_unix(path: Path) -> SocketLink:
    """Connect to a Unix socket.

    Raises:
        ChannelClosed: nobody listens there, or there is no such socket.
    """
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
    except OSError as err:
        sock.close()
        raise ChannelClosed(f"no line at {path}: {err.strerror or err}") from err
    except BaseException:
        sock.close()
        raise
    return SocketLink(sock)
