"""A machine's disks, and the file that its RAM snapshots go into: made, copied, described.

All are qcow2. What is in a disk belongs to its guest: nothing of it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import procs
from ...errors import ConfigError
from ...state import MachineFiles
from ..interface import DiskSpec
from .argv import disk_path

if TYPE_CHECKING:
    from ..report import DiskReport

__all__ = [
    "copy_disks",
    "create_disks",
    "describe_disks",
    "image_info",
    "prepare_disks",
    "qemu_img",
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
    await qemu_img("create", "-q", "-f", "qcow2", str(files.vmstate), str(VMSTATE_BYTES))
    for index, disk in enumerate(disks):
        words = ["create", "-q", "-f", "qcow2"]
        if disk.base is not None:
            base = disk.base.absolute()
            words += ["-b", str(base), "-F", disk.format or await _base_format(base)]
        size = [] if disk.size_bytes is None else [str(disk.size_bytes)]
        await qemu_img(*words, str(disk_path(files, index)), *size)


def copy_disks(prepared: Path, files: MachineFiles) -> None:
    """Make the same of a template's prepared ones: no qemu-img runs, which would take longer."""
    files.disks.mkdir(mode=0o700)
    _copy(prepared / files.vmstate.name, files.vmstate)
    for overlay in (prepared / files.disks.name).iterdir():
        _copy(overlay, files.disks / overlay.name)


async def prepare_disks(bases: Sequence[Path], prepared: Path) -> None:
    """Make, in the folder `prepared`, what `copy_disks` copies: an empty RAM file, and overlays."""
    disks = [DiskSpec(base, format="qcow2") for base in bases]
    await create_disks(MachineFiles("template", prepared, prepared), disks)


async def describe_disks(files: MachineFiles, disks: Sequence[DiskSpec]) -> tuple[DiskReport, ...]:
    """Return what each disk of the machine is."""
    from ..report import DiskReport

    reports = []
    for index, disk in enumerate(disks):
        path = disk_path(files, index)
        info = await image_info(path)
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
    info = await image_info(base)
    probed = info["format"]
    is_disguised = base.suffix in RAW_SUFFIXES and probed != "raw"
    data_file = info.get("format-specific", {}).get("data", {}).get("data-file")
    if is_disguised or data_file or "backing-filename" in info:
        raise ConfigError(
            f"disk image {base} looks like {probed}, and that cannot be trusted",
            hint="say its format, for instance format=raw or format=qcow2",
        )
    return str(probed)


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())  # an empty qcow2: 200 KB


async def image_info(path: Path, *options: str) -> dict[str, Any]:
    """Return what qemu-img tells of a file."""
    # -U: a running QEMU holds the file's lock; only the header is read.
    finished = await qemu_img("info", "-U", "--output=json", *options, str(path))
    info: dict[str, Any] = json.loads(finished.stdout)
    return info


async def qemu_img(*words: str) -> procs.Finished:
    """Run qemu-img. Raises ToolFailed."""
    return await procs.run(["qemu-img", *words], timeout_s=IMG_S)
