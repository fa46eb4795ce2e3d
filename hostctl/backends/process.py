"""The process of a machine: who it is, beyond doubt, and how it ends.

A pid alone is no name: pids are reused, and the host reboots. A process is its pid, the tick at
which it started and the host's boot id; all three are checked before every signal, and the signal
goes through a pidfd, so that not even the instant between check and kill can hit a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from .. import procs

__all__ = ["ProcessId", "find_by_argument", "find_by_words"]

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of this host, of this boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Identify the living process `pid`; None when there is none."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, _boot_id())

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        procs.reap(self.pid)
        return _start_ticks(self.pid) == self.start_ticks and _boot_id() == self.boot_id

    @property
    def uptime_s(self) -> float:
        """Seconds since it started."""
        now = float((PROC / "uptime").read_text().split()[0])
        return max(0.0, now - self.start_ticks / os.sysconf("SC_CLK_TCK"))

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The pidfd pins the pid: if the check passes now, the signal cannot miss.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    async def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended; False after the deadline."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(fd, ended.set)  # a pidfd is readable from the process's end on
            if self.is_alive:
                async with asyncio.timeout(timeout_s):
                    await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return not self.is_alive

    async def end(self, polite_s: float) -> None:
        """SIGTERM, a little patience, SIGKILL; returns when it is gone."""
        if self.send(signal.SIGTERM) and await self.wait_gone(polite_s):
            return
        self.send(signal.SIGKILL)
        # Even SIGKILL waits for a process in the middle of disk I/O.
        await self.wait_gone(30)


def find_by_words(*words: str) -> int | None:
    """Return the pid of the process, of whatever user, that has these arguments one after another.

    A hypervisor's own service starts it, which does not tell.
    """
    needle = os.fsencode("\0".join(("", *words, "")))
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and needle in (entry / "cmdline").read_bytes():
                return int(entry.name)
    return None


def find_by_argument(argument: str) -> ProcessId | None:
    """Find the living process of ours that has `argument` among its arguments.

    For a QEMU whose hostctl was killed between spawning it and writing down its pid: the argument
    is written down before, and unique.
    """
    needle = os.fsencode(argument)
    for entry in os.listdir(PROC):
        if not entry.isdigit():
            continue
        try:
            if os.stat(PROC / entry).st_uid != os.getuid():
                continue
            arguments = (PROC / entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if needle in arguments and (found := ProcessId.of(int(entry))):
            return found
    return None


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, proc(5); None for no process, and for a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[
        text.rindex(b")") + 2 :
    ].split()  # the name in field 2 may hold blanks and parentheses
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


@functools.cache
def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
