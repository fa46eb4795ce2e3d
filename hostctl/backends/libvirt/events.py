"""What libvirt tells of domains, as it happens: from the event thread into asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["DomainEvent", "Listeners"]

# virDomainEventType, in order.
KINDS = (
    "defined",
    "undefined",
    "started",
    "suspended",
    "resumed",
    "stopped",
    "shutdown",
    "pmsuspended",
    "crashed",
)


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something happened to a domain. `detail` is libvirt's number for how."""

    uuid: str
    kind: str
    detail: int


LOST = DomainEvent("", "connection lost", 0)
"""Told to every listener: what happened to domains meanwhile is not known."""


class Listeners:
    """Who wants to hear. Told in any thread, heard in each listener's loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[tuple[asyncio.AbstractEventLoop, Callable[[DomainEvent], None]]] = set()

    @contextlib.contextmanager
    def hearing(self, uuid: str) -> Iterator[asyncio.Queue[DomainEvent]]:
        """Yield a queue of what happens to one domain, and of lost connections."""
        heard: asyncio.Queue[DomainEvent] = asyncio.Queue()

        def hear(event: DomainEvent) -> None:
            if event.uuid in (uuid, LOST.uuid):
                heard.put_nowait(event)

        listener = (asyncio.get_running_loop(), hear)
        with self._lock:
            self._all.add(listener)
        try:
            yield heard
        finally:
            with self._lock:
                self._all.discard(listener)

    def tell(self, event: DomainEvent) -> None:
        """Tell all. Called by libvirt's event thread, which must not wait."""
        with self._lock:
            listeners = tuple(self._all)
        for loop, hear in listeners:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(hear, event)
