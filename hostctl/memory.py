"""Whether this host has the memory that new clones may need; asked before any of them starts.

A clone begins with little memory of its own, and takes a page for each that it writes: in the end
its whole RAM, beside what QEMU itself needs. Whoever counts on less may be killed later, at a time
of the kernel's choice. So each clone counts as its worst case, and each living machine as what
lies between its present and its worst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import MemoryShort
from .state import Home, read_json

__all__ = ["available_bytes", "check_memory", "promised_bytes"]

# QEMU's own: 20 MB when it starts, and what it keeps of translated code.
QEMU_MIB: Final = 64
PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_MIB: Final = 1 << 20


def check_memory(home: Home, template: str, memory_mib: int, count: int) -> None:
    """Raise MemoryShort if `count` clones with that RAM may need more than there is."""
    needed, available = count * _worst(memory_mib), available_bytes()
    promised = promised_bytes(home)
    if needed > available - promised:
        clones = "a clone" if count == 1 else f"{count} clones"
        living = f", of which living machines may still take {promised // _MIB}" if promised else ""
        raise MemoryShort(
            f"{clones} of template {template!r} may need {needed // _MIB} MiB "
            f"({memory_mib} of RAM and {QEMU_MIB} for QEMU each), "
            f"and {available // _MIB} MiB are available{living}",
            needed,
            available - promised,
        )


def promised_bytes(home: Home) -> int:
    """Return what the living machines of QEMU may still take, up to their worst case."""
    return sum(max(0, worst - held) for worst, held in _living(home))


def available_bytes() -> int:
    """Return what may still be used without swapping, here and in our control groups."""
    fields = _fields(PROC / "meminfo")
    return min([fields.get("MemAvailable", 0) * 1024, *_rooms()])


def _living(home: Home) -> Iterator[tuple[int, int]]:
    """Yield the worst case of each machine that has a process, and what it holds for itself."""
    for name in (*home.names(), *home.waiting()):
        files = home.files(name)
        run, record = read_json(files.run), read_json(files.spec)
        if run and run.get("pid") and record and record.get("backend") == "qemu":
            held = _fields(PROC / str(run["pid"]) / "status").get("RssAnon")
            if held is not None:
                yield _worst(record["spec"]["memory_mib"]), held * 1024


def _worst(memory_mib: int) -> int:
    return (memory_mib + QEMU_MIB) * _MIB


def _rooms() -> Iterator[int]:
    """Yield what each control group above us, of version 2, still allows."""
    own = next((line[3:] for line in _text(PROC / "self/cgroup").split() if line[:3] == "0::"), "/")
    group = CGROUPS / own.strip("/")
    for folder in (group, *group.parents):
        limit, used = _text(folder / "memory.max"), _text(folder / "memory.current")
        if limit.strip().isdecimal() and used.strip().isdecimal():
            cache = _fields(folder / "memory.stat").get("inactive_file", 0)  # freed when needed
            yield int(limit) - int(used) + cache


def _fields(path: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+)(?::|\b)[ \t]+(\d+)", _text(path), re.M)
    return {name: int(value) for name, value in found}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
