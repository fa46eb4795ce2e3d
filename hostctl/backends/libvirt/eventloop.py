"""The thread in which libvirt watches its sockets and timers, one for the process.

libvirt takes one event implementation, before the first connection, for ever. This one is ours,
and not libvirt's default, for one reason: it can leave a connection to somebody else. What libvirt
watches it reads, as fast as it comes, and queues without bound; a guest that floods a channel would
fill our memory. The socket of a connection that is left out (`apart`) is read by who holds it, when
there is room, so a full line waits in the kernel, and in the guest, where it belongs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Apart", "EventThread"]

_T = TypeVar("_T")

_READABLE, _WRITABLE, _ERROR, _HANGUP = 1, 2, 4, 8  # VIR_EVENT_HANDLE_*
_TO_POLL = {_READABLE: select.POLLIN, _WRITABLE: select.POLLOUT}
_FROM_POLL = {
    select.POLLIN: _READABLE,
    select.POLLOUT: _WRITABLE,
    select.POLLERR: _ERROR,
    select.POLLNVAL: _ERROR,
    select.POLLHUP: _HANGUP,
}


@dataclass(slots=True)
class _Handle:
    fd: int
    events: int
    callback: Callable[..., None]
    opaque: object
    is_apart: bool = False
    is_removed: bool = False


@dataclass(slots=True)
class _Timer:
    interval_ms: int
    due_s: float
    callback: Callable[..., None]
    opaque: object


class Apart:
    """The socket of a connection whose events its holder serves."""

    def __init__(self) -> None:
        self.fd = -1
        self._number = 0
        self._handle: _Handle | None = None

    def read(self) -> None:
        """Let libvirt read one message, if one is there, and queue what it carries."""
        self._serve(_READABLE)

    def write(self) -> None:
        """Let libvirt write what it has to say, for which it wants to (`wants_to_write`)."""
        self._serve(_WRITABLE)

    def end(self) -> None:
        """Tell libvirt that the other side hung up."""
        self._serve(_HANGUP)

    def hold(self, number: int, handle: _Handle) -> None:
        self.fd, self._number, self._handle = handle.fd, number, handle

    @property
    def wants_to_write(self) -> bool:
        """True while libvirt has something to say: a sign of life that the far side asked for."""
        return not self.is_gone and bool(self._handle and self._handle.events & _WRITABLE)

    @property
    def is_gone(self) -> bool:
        """True once libvirt has closed the socket: it never tells a stream."""
        return self._handle is None or self._handle.is_removed

    def _serve(self, event: int) -> None:
        handle = self._handle
        if handle is not None and not handle.is_removed:
            handle.callback(self._number, handle.fd, event, handle.opaque)


class EventThread:
    """Serves the callbacks of all watched connections. Never ends: libvirt could not bear it.

    It has no lock, on purpose. Python may free a connection at any instant, also inside a lock of
    ours, and libvirt then calls `_remove_handle` in the same thread: that deadlocked everybody.
    Each step on the tables is one that Python makes whole.
    """

    def __init__(self, libvirt: Any) -> None:
        self._libvirt = libvirt
        self._handles: dict[int, _Handle] = {}
        self._timers: dict[int, _Timer] = {}
        self._garbage: deque[object] = deque()
        self._numbers = itertools.count(1)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._here = threading.local()

    def start(self) -> None:
        """Register with libvirt and begin to serve."""
        self._libvirt.virEventRegisterImpl(
            self._add_handle,
            self._update_handle,
            self._remove_handle,
            self._add_timer,
            self._update_timer,
            self._remove_timer,
        )
        threading.Thread(target=self._serve, name="libvirt-events", daemon=True).start()

    @contextlib.contextmanager
    def apart(self) -> Iterator[Apart]:
        """Leave out the connection that this thread opens in the body, and yield it."""
        self._here.apart = found = Apart()
        try:
            yield found
        finally:
            self._here.apart = None

    # What libvirt calls, in any thread, holding locks of its own.

    def _add_handle(
        self, fd: int, events: int, callback: Callable[..., None], opaque: object
    ) -> int:
        apart: Apart | None = getattr(self._here, "apart", None)
        handle = _Handle(fd, events, callback, opaque, is_apart=apart is not None)
        number = next(self._numbers)
        self._handles[number] = handle
        if apart is None:
            self._wake()
        else:
            apart.hold(number, handle)
        return number

    def _update_handle(self, number: int, events: int) -> None:
        self._handles[number].events = events
        self._wake()

    def _remove_handle(self, number: int) -> int:
        handle = self._handles.pop(number)
        handle.is_removed = True
        self._garbage.append(handle.opaque)
        self._wake()
        return 0

    def _add_timer(self, interval_ms: int, callback: Callable[..., None], opaque: object) -> int:
        number = next(self._numbers)
        self._timers[number] = _Timer(interval_ms, _due_s(interval_ms), callback, opaque)
        self._wake()
        return number

    def _update_timer(self, number: int, interval_ms: int) -> None:
        timer = self._timers[number]
        timer.interval_ms, timer.due_s = interval_ms, _due_s(interval_ms)
        self._wake()

    def _remove_timer(self, number: int) -> int:
        self._garbage.append(self._timers.pop(number).opaque)
        self._wake()
        return 0

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    # The thread.

    def _serve(self) -> None:
        while True:
            for fd, found in self._wait():
                if fd == self._wake_fd:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
                else:
                    self._dispatch(fd, found)
            self._fire()
            self._sweep()

    def _wait(self) -> list[tuple[int, int]]:
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        wanted: dict[int, int] = {}
        for _, handle in _items(self._handles):
            if handle.events and not handle.is_apart:
                wanted[handle.fd] = wanted.get(handle.fd, 0) | _poll_mask(handle.events)
        due_s = min((timer.due_s for _, timer in _items(self._timers)), default=float("inf"))
        for fd, mask in wanted.items():
            poller.register(fd, mask)
        left_s = due_s - time.monotonic()
        return poller.poll(None if left_s == float("inf") else max(0.0, left_s * 1000))

    def _dispatch(self, fd: int, mask: int) -> None:
        found = 0
        for bit, event in _FROM_POLL.items():
            found |= event if mask & bit else 0
        numbers = [n for n, h in _items(self._handles) if h.fd == fd and not h.is_apart]
        for number in numbers:
            handle = self._handles.get(number)
            if handle is not None and found & (handle.events | _ERROR | _HANGUP):
                handle.callback(number, fd, found, handle.opaque)

    def _fire(self) -> None:
        now_s = time.monotonic()
        numbers = [number for number, timer in _items(self._timers) if timer.due_s <= now_s]
        for number in numbers:
            timer = self._timers.get(number)
            if timer is None:
                continue
            timer.due_s = _due_s(timer.interval_ms)
            timer.callback(number, timer.opaque)

    def _sweep(self) -> None:
        """Free what was removed: libvirt forbids that inside its own calls."""
        while self._garbage:
            self._libvirt.virEventInvokeFreeCallback(self._garbage.popleft())


def _items(table: dict[int, _T]) -> list[tuple[int, _T]]:
    """Copy a table that other threads change."""
    while True:
        try:
            return list(table.items())
        except RuntimeError:  # it changed under us
            continue


def _due_s(interval_ms: int) -> float:
    return float("inf") if interval_ms < 0 else time.monotonic() + interval_ms / 1000


def _poll_mask(events: int) -> int:
    return sum(bit for event, bit in _TO_POLL.items() if events & event)
