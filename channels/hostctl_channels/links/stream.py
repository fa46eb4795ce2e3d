"""Links over stream sockets.

The Unix socket of a virtio-serial port, and either end of a socketpair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
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

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        try:
            return await asyncio.get_running_loop().sock_recv_into(self._socket, buffer)
        except OSError as err:
            raise ChannelClosed(f"the line broke: {err}") from err

    async def send(self, data: Buffer) -> None:
        """See Link."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as err:
            raise ChannelClosed(f"the line broke: {err}") from err

    def close(self) -> None:
        """See Link."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(
                socket.SHUT_RDWR
            )  # wakes a reader; close alone would leave it waiting
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
