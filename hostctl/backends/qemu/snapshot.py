"""Snapshots of RAM and disks in qcow2 files, live by QEMU's jobs, at rest by qemu-img.

RAM goes into an unattached qcow2 node, `vmstate`, so machines with and without disks are alike.
The truth about what exists is in that file; snapshots.json only adds what qcow2 cannot say (was it
paused).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import procs
from ...errors import BackendError
from ...state import MachineFiles, read_json, write_json
from ..report import Snapshot
from .argv import VMSTATE_NODE, disk_node, disk_path
from .disks import image_info, qemu_img
from .monitor import Monitor
from .outflow import let_out

__all__ = [
    "copy_moment",
    "delete_at_rest",
    "list_snapshots",
    "load",
    "save",
]


async def copy_moment(
    files: MachineFiles, disks: int, tag: str, into: MachineFiles, timeout_s: float
) -> None:
    """Copy snapshot `tag` out of files in use: what it holds is not written any more.

    A disk of the copy has the base of ours, which nobody writes; not so if that is another's disk
    (a template's), which may be deleted: then it holds all by itself.
    """
    shutil.copyfile(files.vmstate, into.vmstate)
    for index in range(disks):
        words = ["convert", "-U", "-l", f"snapshot.name={tag}", "-O", "qcow2"]
        info = await image_info(disk_path(files, index))
        base = info.get("full-backing-filename")
        if base and not Path(base).is_relative_to(files.directory.parent.parent):
            words += ["-B", base, "-F", info["backing-filename-format"]]
        path = disk_path(into, index)
        path.unlink()
        await procs.run(
            ["qemu-img", *words, str(disk_path(files, index)), str(path)], timeout_s=timeout_s
        )


async def save(qmp: Monitor, files: MachineFiles, disks: int, tag: str, timeout_s: float) -> None:
    """Save `tag` from the running process; whether it was paused is written down first.

    Raises BackendError; then there is no `tag`.
    """
    paused = (await qmp.execute("query-status"))["status"] == "paused"
    async with _held(qmp, files, is_running=not paused):
        await let_out(qmp, files)
        _remember(files, tag, {"paused": paused})
        try:
            await qmp.job("snapshot-save", _job(tag, disks), timeout_s)
        except BaseException:
            # Half of it may be in some of the files; what cannot be loaded must not be listed.
            with contextlib.suppress(BackendError):
                await delete(qmp, files, disks, tag, timeout_s)
            raise


@contextlib.asynccontextmanager
async def _held(qmp: Monitor, files: MachineFiles, *, is_running: bool) -> AsyncIterator[None]:
    """Hold the guest still. A mark tells whoever comes to let it go on, should we not come to."""
    if not is_running:
        yield
        return
    files.held.touch(mode=0o600)
    try:
        await qmp.execute("stop")
        yield
    finally:
        with contextlib.suppress(BackendError):  # busy, or dying: the mark stays for the next one
            await asyncio.shield(asyncio.ensure_future(qmp.execute("cont")))
            files.held.unlink(missing_ok=True)


async def load(qmp: Monitor, disks: int, tag: str, timeout_s: float) -> None:
    """Load `tag` and leave the guest frozen. On failure it is as it was, running or paused.

    The guest is stopped first: not one instruction of the new timeline may run before the caller
    has told everyone that the old one is cut.
    """
    was_running = (await qmp.execute("query-status"))["running"]
    await qmp.execute("stop")
    try:
        await qmp.job("snapshot-load", _job(tag, disks), timeout_s)
    except BackendError:
        # A failed load leaves the run state `restore-vm`; `cont` is the way back from it.
        with contextlib.suppress(BackendError):
            await qmp.execute("cont")
            if not was_running:
                await qmp.execute("stop")
        raise


async def delete(qmp: Monitor, files: MachineFiles, disks: int, tag: str, timeout_s: float) -> None:
    """Drop `tag` from the files of the running process; a file without it is fine."""
    await qmp.job("snapshot-delete", {"tag": tag, "devices": _nodes(disks)}, timeout_s)
    _remember(files, tag, None)


async def delete_at_rest(files: MachineFiles, disks: int, tag: str) -> None:
    """Drop `tag` from the files of a machine that has no process."""
    for path in [files.vmstate, *(disk_path(files, index) for index in range(disks))]:
        if any(entry["name"] == tag for entry in await _entries(path)):
            await qemu_img("snapshot", "-q", "-d", tag, str(path))
    _remember(files, tag, None)


async def list_snapshots(files: MachineFiles) -> tuple[Snapshot, ...]:
    """Return what the RAM file holds, oldest first."""
    notes = read_json(files.snapshots) or {}
    found = [
        Snapshot(
            tag=entry["name"],
            created=datetime.fromtimestamp(entry["date-sec"] + entry["date-nsec"] / 1e9, UTC),
            vm_state_bytes=entry["vm-state-size"],
            has_ram=entry["vm-state-size"] > 0,
            paused=bool(notes.get(entry["name"], {}).get("paused")),
        )
        for entry in await _entries(files.vmstate)
    ]
    return tuple(sorted(found, key=lambda snapshot: snapshot.created))


def _nodes(disks: int) -> list[str]:
    return [VMSTATE_NODE, *(disk_node(index) for index in range(disks))]


def _job(tag: str, disks: int) -> dict[str, object]:
    return {"tag": tag, "vmstate": VMSTATE_NODE, "devices": _nodes(disks)}


def _remember(files: MachineFiles, tag: str, note: dict[str, Any] | None) -> None:
    notes = read_json(files.snapshots) or {}
    notes.pop(tag, None)
    if note is not None:
        notes[tag] = note
    write_json(files.snapshots, notes)


async def _entries(path: Path) -> list[dict[str, Any]]:
    return list((await image_info(path)).get("snapshots", ()))
