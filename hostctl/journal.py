"""What hostctl did to machines, one JSON line an act, written by every process as it acts.

There is no daemon, so this file is how processes hear of each other. A line is written by one
`write` of O_APPEND, which the kernel does not mix with others; when the file is full it is put
aside, and what was there before that is dropped. A line that a crash cut short is no line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Event", "Journal"]

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 1 << 20  # some ten thousand acts
_MAX_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a machine. `time_s` is this host's clock, in Unix seconds."""

    machine: str
    kind: str
    time_s: float
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; keys stay as they are."""
        return {"time_s": round(self.time_s, 3), "machine": self.machine, "event": self.kind} | (
            {"detail": self.detail} if self.detail else {}
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Event:
        """Rebuild from `to_json`'s values. Raises KeyError, TypeError or ValueError."""
        machine, kind, time_s = str(data["machine"]), str(data["event"]), float(data["time_s"])
        return cls(machine, kind, time_s, dict(data.get("detail") or {}))


class Journal:
    """The file. A reader keeps its own place in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = path.with_suffix(".old")
        self._inode = 0
        self._offset = 0

    def note(self, machine: str, kind: str, **detail: object) -> None:
        """Write an act down. Never raises: the act has been done."""
        event = Event(machine, kind, time.time(), detail)
        line = json.dumps(event.to_json()).encode() + b"\n"
        if len(line) > _MAX_LINE:
            line = json.dumps(Event(machine, kind, event.time_s).to_json()).encode() + b"\n"
        try:
            self._append(line)
        except OSError as err:
            logger.warning("an event was not written down: %s", err)

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            os.write(fd, line)
            is_full = os.fstat(fd).st_size > MAX_BYTES
        finally:
            os.close(fd)
        if is_full:
            with contextlib.suppress(FileNotFoundError):  # another one was quicker
                self._path.rename(self._old)

    def skip(self) -> None:
        """Go to the end: what has happened so far is not read."""
        for _ in self.read():
            pass

    def read(self) -> Iterator[Event]:
        """Yield what was written since the last time."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:  # put aside, and nothing written since
            yield from self._put_aside()
            return
        with file:
            if os.fstat(file.fileno()).st_ino != self._inode:
                yield from self._put_aside()
            yield from self._lines(file)

    def _put_aside(self) -> Iterator[Event]:
        """Yield what we have not read of the file that was put aside since we read any."""
        if self._inode:
            with contextlib.suppress(FileNotFoundError), self._old.open("rb") as file:
                yield from self._lines(file)

    def _lines(self, file: Any) -> Iterator[Event]:
        if (inode := os.fstat(file.fileno()).st_ino) != self._inode:
            self._inode, self._offset = inode, 0
        file.seek(self._offset)
        for line in file:
            if not line.endswith(b"\n"):  # it is being written, or was never ended
                return
            self._offset += len(line)
            with contextlib.suppress(KeyError, TypeError, ValueError):
                yield Event.from_json(json.loads(line))
