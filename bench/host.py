"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import hostctl_images
from hostctl.machine import Machine

__all__ = ["describe", "load"]


async def describe(machine: Machine, image: str) -> dict[str, str | int | float]:
    """Return what somebody needs who compares with other numbers."""
    report = await machine.describe()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "describe", "--always", "--dirty", "--exclude=*"),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "qemu": _said("qemu-system-x86_64", "--version").partition("\n")[0],
        "accel": report.accel or "unknown",
        "guest": f"{image}, {hostctl_images.find(image).digest}, -smp 1",
    }


def load() -> float:
    """Return the load of the last minute: above 1 before a run, somebody else is at work."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def _said(*argv: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True).stdout.strip()
