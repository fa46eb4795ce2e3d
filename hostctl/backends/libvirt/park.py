"""Lines to a far host, kept for the next stream: each costs an ssh login, a command needs three.

Some are dialled ahead, at once, when a machine's ports are asked for; a line whose stream ended in
order comes back. A parked line is served by the thread that brought it: libvirtd hangs up on who
does not answer its questions.
"""

from __future__ import annotations

import logging
import select
import threading
from collections import deque

from .binding import libvirt
from .line import Line, dial

__all__ = ["AHEAD", "Park", "close_park", "park_of"]

logger = logging.getLogger(__name__)

AHEAD = 3  # a command's own port, and one each for its stdout and stderr
MOST = 8
COMING_S = 30.0


class Park:
    """The idle lines to one URI."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._changed = threading.Condition()
        self._idle: deque[Line] = deque()
        self._coming = 0
        self._is_closed = False

    def prefetch(self) -> None:
        """Begin to dial what is missing; returns at once."""
        with self._changed:
            missing = AHEAD - len(self._idle) - self._coming
            self._coming += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._fetch, name="libvirt dial", daemon=True).start()

    def take(self) -> Line:
        """Return a line: an idle one, one that is coming, or a new one. Blocks."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._idle or not self._coming, COMING_S)
                line = self._idle.popleft() if self._idle else None
            if line is None:
                return dial(self._uri)
            if line.leave():
                return line
            line.close()

    def keep(self, line: Line) -> None:
        """Park a line, and serve it until somebody takes it. Called by the thread that had it."""
        with self._changed:
            if self._is_closed or len(self._idle) >= MOST:
                line.close()
                return
            line.park()
            self._idle.append(line)
            self._changed.notify_all()
        while line.is_parked:
            found = line.wait(reading=True, writing=False, limit_s=None)
            if found & select.POLLIN:
                line.apart.read()
            elif found:
                line.apart.end()
            if line.apart.is_gone:
                break
        line.left.set()
        with self._changed:
            if line not in self._idle:
                return  # whoever took it closes it
            self._idle.remove(line)
        line.close()

    def close(self) -> None:
        """Hang up all that is idle; what comes back later is hung up then."""
        with self._changed:
            self._is_closed = True
            idle = tuple(self._idle)
        for line in idle:
            line.cut()

    def _fetch(self) -> None:
        line: Line | None = None
        try:
            line = dial(self._uri)
        except libvirt().libvirtError as err:
            logger.info("dialling %s ahead: %s", self._uri, err)
        finally:
            with self._changed:
                self._coming -= 1
                if line is None:
                    self._changed.notify_all()
        if line is not None:
            self.keep(line)


_parks: dict[str, Park] = {}


def park_of(uri: str) -> Park:
    """Return the process' park for `uri`."""
    return _parks.setdefault(uri, Park(uri))


def close_park(uri: str) -> None:
    """Hang up what is parked; the next `park_of` begins anew."""
    if (park := _parks.pop(uri, None)) is not None:
        park.close()
