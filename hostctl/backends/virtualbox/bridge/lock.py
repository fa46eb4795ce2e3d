"""Waiting for VirtualBox: session locks that are not free yet, operations that take their time."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, Generator

from .serve import Fault

__all__ = ["Steps", "finish", "locked", "unlock", "unlocked"]

Steps = Generator[Any, None, Any]

LOCK_S = 15.0  # a VBoxHeadless that was told to go lingers that long while somebody refers to it
LOOK_S = 0.03
SLICE_MS = 20
NOT_RUNNING = 0x80BB0002  # VBOX_E_INVALID_VM_STATE
# "Already locked", "being unlocked", "in use": by the last VBoxHeadless or another client. And "no
# console from the direct session": it has died, and VBoxSVC is about to see it.
PASSING = frozenset({0x80BB0003, 0x80BB0007, 0x80BB000B, 0x80BB000C, 0x80070005, 0x80004005})


def locked(box: Any, machine: Any, *, shared: bool) -> Steps:
    """Lock a machine and return the session; patient with locks that are about to go."""
    kinds = box.bindings.LockType
    deadline = time.monotonic() + LOCK_S
    while True:
        # Or we would get a lock of our own, without a console.
        if shared and not is_locked(box, machine):
            raise Fault("vbox", "the machine does not run", NOT_RUNNING)
        session = box.api.module.Session()
        try:
            machine.lock_machine(session, kinds.shared if shared else kinds.write)
        except box.bindings.VBoxError as err:
            if err.value not in PASSING or time.monotonic() > deadline:
                raise
        else:
            return session
        yield LOOK_S


def unlock(session: Any) -> None:
    """Give a session's lock back, if it still has one."""
    try:
        session.unlock_machine()
    except Exception:  # what it locked is gone
        return


def finish(progress: Any, what: str) -> Steps:
    """Wait until an operation has ended.

    Raises a `Fault` with what VirtualBox says when it failed.
    """
    while not progress.completed:
        progress.wait_for_completion(SLICE_MS)
        yield 0.0
    code = progress.result_code & 0xFFFFFFFF
    if code:
        info = progress.error_info
        raise Fault("vbox", (info.text if info else "") or what, code)


def unlocked(box: Any, machine: Any, timeout_s: float = LOCK_S) -> Steps:
    """Wait until nobody holds a machine's lock: its VBoxHeadless has gone."""
    gc.collect()  # whoever refers to its console keeps it
    yield from until(lambda: not is_locked(box, machine), timeout_s, "the machine is still locked")


def until(reached: Callable[[], bool], timeout_s: float, otherwise: str) -> Steps:
    """Wait until something is so; a `Fault` of kind "late" after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            raise Fault("late", f"{otherwise} after {timeout_s:g} s")
        yield LOOK_S


def is_locked(box: Any, machine: Any) -> bool:
    """Tell whether somebody holds a machine's lock, or is about to get or lose it."""
    return int(machine.session_state) != int(box.bindings.SessionState.unlocked)
