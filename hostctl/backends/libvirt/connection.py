"""The connection to one libvirt: every call in its owner thread, opened on use, reopened when lost.

Streams do not travel here: each has a connection of its own (`stream.py`), so that a guest that
does not read holds up nobody else's calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import BackendError, DeadlineExceeded
from .binding import libvirt
from .events import KINDS, LOST, DomainEvent, Listeners
from .faults import translate
from .owner import Owner
from .park import close_park

__all__ = ["Connection", "borrow", "give_back"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_S = 60.0  # opening through ssh takes seconds, a start on a loaded host too
# A libvirtd that hangs is noticed after 15 s; one that died, at once.
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3


class Connection:
    """Calls to one libvirt. Lives in any number of event loops, one after the other."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.listeners = Listeners()
        self.users = 0
        self._owner = Owner(f"libvirt {uri}")
        self._connect: Any = None

    async def call(
        self, what: str, work: Callable[[Any], T], *, again: bool = True, timeout_s: float = CALL_S
    ) -> T:
        """Run `work` on the open virConnect.

        `again`: it only looks, or may be repeated: a connection that breaks under it is opened
        anew, once. A cancelled call goes on, unheard.

        Raises:
            BackendError: libvirt's answer, or that it cannot be reached.
            DeadlineExceeded: no answer; the connection is given up.
        """
        owner = self._owner
        future = owner.submit(lambda: self._work(what, work, again))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if self._owner is owner:  # its thread hangs in the library: leave it behind
                self._owner, self._connect = Owner(f"libvirt {self.uri}"), None
                owner.close()
            raise DeadlineExceeded(
                f"{what}: libvirt at {self.uri} did not answer within {timeout_s:g} s"
            ) from None

    async def close(self) -> None:
        """Hang up; the next call connects anew. A connection that hangs is left behind."""
        with contextlib.suppress(TimeoutError, BackendError):
            async with asyncio.timeout(2):
                await asyncio.wrap_future(self._owner.submit(self._hang_up))

    def end(self) -> None:
        """End the thread, after a `close`."""
        self._owner.close()

    # In the owner thread.

    def _work(self, what: str, work: Callable[[Any], T], again: bool) -> T:
        library = libvirt()
        for attempt in (1, 2):
            try:
                connect = self._opened()
            except library.libvirtError as err:
                raise translate(err, f"connect to {self.uri}", self.uri) from err
            try:
                return work(connect)
            except library.libvirtError as err:
                is_lost = not _is_alive(connect)
                if is_lost:
                    self._hang_up()
                if attempt == 1 and is_lost and again:
                    logger.info("%s: the connection to %s broke: once more", what, self.uri)
                    continue
                raise translate(err, what, self.uri) from err
        raise AssertionError("unreachable")

    def _opened(self) -> Any:
        if self._connect is not None and not _is_alive(self._connect):
            self._hang_up()
        if self._connect is None:
            self._connect = self._open()
        return self._connect

    def _open(self) -> Any:
        library = libvirt()
        connect = library.open(self.uri)
        with contextlib.suppress(library.libvirtError):  # drivers in our own process have none
            connect.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
        with contextlib.suppress(library.libvirtError):
            connect.registerCloseCallback(self._lost, None)
            connect.domainEventRegisterAny(
                None, library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._happened, None
            )
        return connect

    def _hang_up(self) -> None:
        connect, self._connect = self._connect, None
        if connect is not None:
            with contextlib.suppress(libvirt().libvirtError):
                connect.unregisterCloseCallback()
            with contextlib.suppress(libvirt().libvirtError):
                connect.close()

    # In the event thread.

    def _lost(self, _connect: Any, reason: int, _opaque: object) -> None:
        logger.info("libvirt at %s hung up, reason %d", self.uri, reason)
        self.listeners.tell(LOST)

    def _happened(
        self, _connect: Any, domain: Any, kind: int, detail: int, _opaque: object
    ) -> None:
        word = KINDS[kind] if kind < len(KINDS) else str(kind)
        self.listeners.tell(DomainEvent(domain.UUIDString(), word, detail))


_connections: dict[str, Connection] = {}


def borrow(uri: str) -> Connection:
    """Return the process' connection to `uri`; machines share it, and each gives it back."""
    connection = _connections.setdefault(uri, Connection(uri))
    connection.users += 1
    return connection


async def give_back(connection: Connection) -> None:
    """Hang up when nobody else has the connection."""
    connection.users -= 1
    if not connection.users:
        _connections.pop(connection.uri, None)
        close_park(connection.uri)
        await connection.close()
        connection.end()


def _is_alive(connect: Any) -> bool:
    try:
        return bool(connect.isAlive())
    except libvirt().libvirtError:
        return False
