"""Operations on a machine's snapshots. They are a tree; each is named by its id, or its name."""

from __future__ import annotations

import os
from typing import Any, Iterator

from .lock import Steps, finish, is_locked, locked, unlock
from .machines import find
from .serve import Operation

__all__ = ["OPERATIONS", "walk"]


def walk(machine: Any) -> Iterator[Any]:
    """Yield all snapshots, parents before children."""
    if not machine.snapshot_count:
        return
    waiting = [machine.find_snapshot("")]  # the root
    while waiting:
        snapshot = waiting.pop(0)
        yield snapshot
        waiting += snapshot.children


def list_snapshots(box: Any, machine: str) -> list[dict[str, Any]]:
    """Return them, oldest first. `ram_bytes`: the size of the saved memory, None without it."""
    found = find(box, machine)
    current = found.current_snapshot.id_p if found.snapshot_count else None
    shown = [_shown(snapshot, current) for snapshot in walk(found)]
    return sorted(shown, key=lambda one: one["created_ms"])


def save(box: Any, machine: str, *, tag: str, note: str) -> Steps:
    """Save memory and disks of a machine, alive or not, as `tag`; return the new one's id."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=is_locked(box, found))
    try:
        progress, made = session.machine.take_snapshot(tag, note, True)
        yield from finish(progress, "the snapshot was not saved")
    finally:
        unlock(session)
    return made


def restore(box: Any, machine: str, *, snapshot: str) -> Steps:
    """Make a snapshot the state of a machine that does not run; its present state is lost."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=False)
    try:
        target = session.machine.find_snapshot(snapshot)
        yield from finish(session.machine.restore_snapshot(target), "it was not restored")
    finally:
        unlock(session)


def delete(box: Any, machine: str, *, snapshot: str) -> Steps:
    """Drop a snapshot, alive or not; its disks are merged."""
    found = find(box, machine)
    target = found.find_snapshot(snapshot).id_p
    session = yield from locked(box, found, shared=is_locked(box, found))
    try:
        yield from finish(session.machine.delete_snapshot(target), "it was not deleted")
    finally:
        unlock(session)


def _shown(snapshot: Any, current: str | None) -> dict[str, Any]:
    path = snapshot.machine.state_file_path if snapshot.online else ""
    return {
        "id": snapshot.id_p,
        "tag": snapshot.name,
        "note": snapshot.description,
        "created_ms": int(snapshot.time_stamp),
        "online": bool(snapshot.online),
        "ram_bytes": _size(path),
        "current": snapshot.id_p == current,
    }


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size if path else None
    except OSError:
        return None


OPERATIONS: dict[str, Operation] = {
    "snapshot.list": list_snapshots,
    "snapshot.save": save,
    "snapshot.restore": restore,
    "snapshot.delete": delete,
}
