"""What a machine uses: by its process here, by its hypervisor's counters, and as seen inside.

All of it is counted since the machine's start; rates are the caller's to make of two looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import HostctlError

if TYPE_CHECKING:
    from .guest import Guest

__all__ = ["LOOK", "GuestUse", "HostUse", "MachineStats"]

ANSWER_S: Final = 5.0
_FILES: Final = "/proc/uptime /proc/loadavg /proc/meminfo /proc/stat"
_PORTS: Final = "/sys/kernel/debug/virtio-ports/*"  # of virtio_console.c; QEMU itself counts none
LOOK: Final = f"cat {_FILES} {_PORTS} 2>/dev/null"
"""The line of sh whose output `GuestUse.parse` reads."""
_MAX_TOLD: Final = 64 * 1024
_HZ: Final = 100  # of the guest's /proc/stat: USER_HZ, the same for every Linux of this age


@dataclass(frozen=True, slots=True)
class HostUse:
    """What its process uses here. Seconds and bytes."""

    cpu_s: float
    resident_bytes: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> HostUse | None:
        """Look at a process; None when it has ended, or when there is no /proc."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        ticks = os.sysconf("SC_CLK_TCK")
        cpu_s = (int(fields[11]) + int(fields[12])) / ticks
        return cls(cpu_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), int(fields[17]))


@dataclass(frozen=True, slots=True)
class GuestUse:
    """What its Linux tells. Seconds and bytes; None where it does not tell."""

    uptime_s: float | None = None
    load: float | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    port_read_bytes: int | None = None
    port_written_bytes: int | None = None

    @classmethod
    async def ask(cls, guest: Guest) -> GuestUse | None:
        """Ask a guest that is awake; None when it does not answer within seconds."""
        with contextlib.suppress(HostctlError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                return cls.parse((await guest.shell(LOOK)).stdout)
        return None

    @classmethod
    def parse(cls, text: bytes) -> GuestUse:
        """Read what LOOK printed; a guest may print anything."""
        text = text[:_MAX_TOLD]
        head = re.match(rb"(\d{1,12}\.\d\d) \d+\.\d\d\n(\d{1,6}\.\d\d) ", text)
        total, free = _kib(text, b"MemTotal"), _kib(text, b"MemAvailable")
        cpu = re.search(rb"^cpu +(\d{1,15}) (\d{1,15}) (\d{1,15}) ", text, re.M)
        return cls(
            uptime_s=float(head[1]) if head else None,
            load=float(head[2]) if head else None,
            cpu_s=sum(map(int, cpu.groups())) / _HZ if cpu else None,
            memory_bytes=total,
            available_bytes=free,
            port_read_bytes=_sum(text, b"received"),
            port_written_bytes=_sum(text, b"sent"),
        )


def _kib(text: bytes, key: bytes) -> int | None:
    found = re.search(rb"^%s: +(\d{1,12}) kB$" % key, text, re.M)
    return int(found[1]) * 1024 if found else None


def _sum(text: bytes, way: bytes) -> int | None:
    found = re.findall(rb"^bytes_%s: (\d{1,19})$" % way, text, re.M)
    return sum(map(int, found)) if found else None


@dataclass(frozen=True, slots=True)
class MachineStats:
    """All that is known; None is what could not be asked."""

    host: HostUse | None
    guest: GuestUse | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None
