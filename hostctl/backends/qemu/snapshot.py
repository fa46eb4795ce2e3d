"""Snapshots of RAM and disks in qcow2 files, live by QEMU's jobs, at rest by qemu-img.

RAM goes into an unattached qcow2 node, `vmstate`, so machines with and without disks are alike.
The truth about what exists is in that file; snapshots.json only adds what qcow2 cannot say (was it
paused).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import procs
from ...errors import BackendError, ConfigError
from ...state import MachineFiles, read_json, write_json
from ..interface import DiskSpec
from ..report import DiskReport, Snapshot
from .argv import VMSTATE_NODE, disk_node, disk_path
from .monitor import Monitor
from .outflow import let_out

__all__ = [
    "copy_disks",
    "copy_moment",
    "create_disks",
    "delete_at_rest",
    "describe_disks",
    "list_snapshots",
    "load",
    "prepare_disks",
    "save",
]

IMG_S = 60.0  # qemu-img on local files: milliseconds; a network file system may take its time
VMSTATE_BYTES = 1 << 20  # virtual size; snapshots lie outside it, so it need not hold the RAM
RAW_SUFFIXES = frozenset({".img", ".raw", ".bin"})


async def create_disks(files: MachineFiles, disks: Sequence[DiskSpec]) -> None:
    """Make the RAM file and one overlay per disk.

    Raises:
        ConfigError: a base is missing, or what it is cannot be told safely.
        ToolFailed: qemu-img refused.
    """
    files.disks.mkdir(mode=0o700)
    await _img("create", "-q", "-f", "qcow2", str(files.vmstate), str(VMSTATE_BYTES))
    for index, disk in enumerate(disks):
        words = ["create", "-q", "-f", "qcow2"]
        if disk.base is not None:
            base = disk.base.absolute()
            words += ["-b", str(base), "-F", disk.format or await _base_format(base)]
        size = [] if disk.size_bytes is None else [str(disk.size_bytes)]
        await _img(*words, str(disk_path(files, index)), *size)


def copy_disks(prepared: Path, files: MachineFiles) -> None:
    """Make the same of a template's prepared ones: no qemu-img runs, which would take longer."""
    shutil.copyfile(prepared / files.vmstate.name, files.vmstate)
    shutil.copytree(prepared / files.disks.name, files.disks)


async def prepare_disks(bases: Sequence[Path], prepared: Path) -> None:
    """Make, in the folder `prepared`, what `copy_disks` copies: an empty RAM file, and overlays."""
    disks = [DiskSpec(base, format="qcow2") for base in bases]
    await create_disks(MachineFiles("template", prepared, prepared), disks)


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
        info = await _info(disk_path(files, index))
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
            await _img("snapshot", "-q", "-d", tag, str(path))
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


async def describe_disks(files: MachineFiles, disks: Sequence[DiskSpec]) -> tuple[DiskReport, ...]:
    """Return what each disk of the machine is."""
    reports = []
    for index, disk in enumerate(disks):
        path = disk_path(files, index)
        info = await _info(path)
        base = None if disk.base is None else disk.base.absolute()
        reports.append(DiskReport(path, base, info["virtual-size"], info["actual-size"]))
    return tuple(reports)


async def _base_format(base: Path) -> str:
    """Tell the format of a base image from its header, where that is safe.

    A raw disk's first bytes belong to its guest: one that wrote a qcow2 header there, with a
    backing file of its choice, would read any file of the host. So what looks like a format with
    further files, or does not fit its suffix, must be told by the user.
    """
    if not base.is_file():  # noqa: ASYNC240 one look at a local path
        raise ConfigError(f"disk image {base} is not a file")
    info = await _info(base)
    probed = info["format"]
    is_disguised = base.suffix in RAW_SUFFIXES and probed != "raw"
    data_file = info.get("format-specific", {}).get("data", {}).get("data-file")
    if is_disguised or data_file or "backing-filename" in info:
        raise ConfigError(
            f"disk image {base} looks like {probed}, and that cannot be trusted",
            hint="say its format, for instance format=raw or format=qcow2",
        )
    return str(probed)


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
    return list((await _info(path)).get("snapshots", ()))


async def _info(path: Path, *options: str) -> dict[str, Any]:
    # -U: a running QEMU holds the file's lock; only the header is read.
    finished = await _img("info", "-U", "--output=json", *options, str(path))
    info: dict[str, Any] = json.loads(finished.stdout)
    return info


async def _img(*words: str) -> procs.Finished:
    return await procs.run(["qemu-img", *words], timeout_s=IMG_S)
