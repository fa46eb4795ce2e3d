"""Starting a machine paused, which the API has no call for: by the program that it would run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from ... import procs
from ...errors import BootFailed
from ...state import tail
from ..process import find_by_words
from .seen import Look, VmState

__all__ = ["start_paused", "vm_process"]

START_S: Final = 60.0
CLAIM_S: Final = 10.0  # from its exec until it has the machine's lock
LOOK_S: Final = 0.03
PROC: Final = Path("/proc")


async def start_paused(
    program: Sequence[str], machine: str, log: Path, look: Callable[[str], Awaitable[Look]]
) -> None:
    """Start VBoxHeadless (`program`, with its prefix) and return when the machine is paused.

    Raises:
        BootFailed: it ended, or did not get that far in time; its last words are quoted.
    """
    argv = (*program, "--startvm", machine, "--start-paused", "--vrde", "config")
    pid = procs.spawn_detached(argv, log)
    began, was_locked = time.monotonic(), False
    while time.monotonic() - began < START_S:
        seen = await look(machine)
        if seen.state is VmState.PAUSED:
            return
        was_locked = was_locked or seen.is_locked
        is_over = was_locked or time.monotonic() - began > CLAIM_S or not _lives(pid)
        if is_over and not seen.is_locked:
            break
        await asyncio.sleep(LOOK_S)
    stderr = tail(log, 60)
    said = stderr.splitlines()[-1] if stderr else "it said nothing"
    raise BootFailed(f"it did not start: {said}", stderr=stderr, hint=f"see {log}")


def vm_process(machine: str) -> int | None:
    """Return the process that runs a machine, by its arguments; None if there is none here."""
    return find_by_words("--startvm", machine)


def _lives(pid: int) -> bool:
    procs.reap(pid)
    return (PROC / str(pid)).exists()
