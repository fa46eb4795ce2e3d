"""A connection for one stream, and the ways to wait for it, to wake its thread, and to end it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Any

from hostctl_channels.errors import ChannelError

from .binding import events, libvirt
from .eventloop import Apart

__all__ = ["Line", "dial"]

LEAVE_S = 5.0  # its thread only has to wake up


class Line:
    """A connection for one stream, its socket, and a bell for the thread that serves it."""

    def __init__(self, connect: Any, apart: Apart) -> None:
        self.connect = connect
        self.apart = apart
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with socket.socket(fileno=apart.fd) as borrowed:
            self._socket = borrowed.dup()
            borrowed.detach()
        self._lock = threading.Lock()
        self._is_open = True
        self.is_parked = False
        self.left = threading.Event()

    def park(self) -> None:
        """It is idle, and the thread that calls this will serve it until `leave`."""
        self.left.clear()
        self.is_parked = True

    def leave(self) -> bool:
        """Take it from the thread that serves it idle; False when it is broken."""
        self.is_parked = False
        self.wake()
        return self.left.wait(LEAVE_S) and not self.apart.is_gone

    def wait(self, *, reading: bool, writing: bool, limit_s: float | None) -> int:
        """Wait for the socket or the bell; return poll's bits of the socket, 0 for none.

        At the limit, too: but then the bell has not rung, which `limit_s` waits on as well.
        libvirt's own words are written meanwhile.
        """
        own = self.apart.wants_to_write
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        mask = (select.POLLIN if reading else 0) | (select.POLLOUT if writing or own else 0)
        poller.register(self._socket, mask)
        found = dict(poller.poll(None if limit_s is None else limit_s * 1000))
        if self._bell in found:
            os.eventfd_read(self._bell)
        bits = found.get(self._socket.fileno(), 0)
        if own and bits & select.POLLOUT:
            self.apart.write()
        return bits if writing else bits & ~select.POLLOUT

    def wake(self) -> None:
        """Ring the bell."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._is_open:
                os.eventfd_write(self._bell, 1)

    def cut(self) -> None:
        """End it at once, whoever is inside; libvirtd then frees the port."""
        with self._lock, contextlib.suppress(OSError):
            if self._is_open:
                self._socket.shutdown(socket.SHUT_RDWR)
        self.wake()

    def close(self) -> None:
        """Free all; for the thread that serves it, or when none does."""
        with contextlib.suppress(libvirt().libvirtError):
            self.connect.close()
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._socket.close()
                os.close(self._bell)


def dial(uri: str) -> Line:
    """Open a connection for one stream. Blocks."""
    with events().apart() as apart:
        connect = libvirt().open(uri)
    if apart.fd < 0:
        raise ChannelError(f"the connection {uri} has no socket to carry a stream")
    return Line(connect, apart)
