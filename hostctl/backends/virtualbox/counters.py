"""What VirtualBox counts of a machine that runs: the bytes of its disks, since its start."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DISK_COUNTERS", "disk_bytes"]

DISK_COUNTERS: Final = "/Public/Storage/*/Bytes*"
"""Which ones to ask for, as IMachineDebugger::getStats and `debugvm statistics` take it."""

_COUNTER: Final = re.compile(r'<Counter c="(\d{1,20})"[^>]*/Bytes(Read|Written)"')


def disk_bytes(text: str) -> tuple[int | None, int | None]:
    """Return the bytes read and written, out of VirtualBox's XML; None where it counts nothing.

    A counter is not there before it counts.
    """
    found = [(word, int(count)) for count, word in _COUNTER.findall(text)]
    if not found:
        return None, None
    read = sum(count for word, count in found if word == "Read")
    return read, sum(count for _, count in found) - read
