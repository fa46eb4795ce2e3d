"""Disks of a machine: what a base image is, and the copy that the machine gets of it.

A machine never writes to its base, and never opens it: a raw image becomes a VDI, a VDI, VMDK or
VHD is copied. A CD is read where it lies. (Overlays, as other back ends have them, would make the
base a medium of this VirtualBox, bound to our disk; copies are sparse, linked clones are cheap.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ...errors import ConfigError
from ..interface import DiskSpec
from . import vdi

__all__ = ["DVD", "HARD_DISK", "NewDisk", "check_disks", "is_cd", "kind_of", "make_disks"]

DVD: Final = "dvd"
HARD_DISK: Final = "disk"
ISO: Final = "iso"
RAW: Final = "raw"
FORMATS: Final = (ISO, RAW, "vdi", "vhd", "vmdk")
RAW_SUFFIXES: Final = frozenset({".img", ".raw", ".bin"})
SUFFIXES: Final = {".iso": ISO, ".cdr": ISO, ".vdi": "vdi", ".vhd": "vhd", ".vmdk": "vmdk"}

_VMDK: Final = b"KDMV"
_VMDK_TEXT: Final = b"# Disk DescriptorFile"
_VHD: Final = b"conectix"
_PIECE: Final = 1 << 20


class NewDisk(NamedTuple):
    """A disk to attach: `size_bytes` is what it shall be grown to, 0 to leave it."""

    path: Path
    kind: str
    size_bytes: int = 0


def check_disks(disks: Sequence[DiskSpec]) -> None:
    """Raise `ConfigError` for a base that cannot be told safely, or not be used."""
    for disk in disks:
        if disk.base is not None:
            kind_of(disk)


def kind_of(disk: DiskSpec) -> str:
    """Return the format of a disk's base: as told, or as its name and its content agree on.

    Raises:
        ConfigError: they do not; VirtualBox has no such format; or its content is in other files.
    """
    assert disk.base is not None
    if disk.format is not None and disk.format not in FORMATS:
        formats = ", ".join(FORMATS)
        hint = f"VirtualBox takes {formats}; convert it: qemu-img convert -O vdi"
        raise ConfigError(f"disk image {disk.base}: no format {disk.format!r}", hint=hint)
    with disk.base.open("rb") as file:
        found, suffix = _content(file), disk.base.suffix.lower()
        if found == "vmdk" and _is_text(file):
            raise ConfigError(
                f"disk image {disk.base} only names other files", hint="convert it into one file"
            )
    if disk.format is not None:
        return disk.format
    named = RAW if suffix in RAW_SUFFIXES else SUFFIXES.get(suffix)
    if named is None or named != found:
        says = named or "nothing"
        raise ConfigError(
            f"disk image {disk.base}: its name says {says}, its content looks like {found}",
            hint="say its format, for instance format=raw",
        )
    return named


def is_cd(disk: DiskSpec) -> bool:
    """Tell whether a disk that was checked is a CD; its base need not be there any more."""
    suffix = "" if disk.base is None else disk.base.suffix.lower()
    return (disk.format or SUFFIXES.get(suffix)) == ISO


def make_disks(folder: Path, disks: Sequence[DiskSpec]) -> tuple[NewDisk, ...]:
    """Make the files of a new machine's disks in `folder`. On failure parts may be left."""
    return tuple(_make(folder / f"disk{index}", disk) for index, disk in enumerate(disks))


def _make(stem: Path, disk: DiskSpec) -> NewDisk:
    size = disk.size_bytes or 0
    if disk.base is None:
        return _write_vdi(stem, size, None)
    kind = kind_of(disk)
    if kind == ISO:
        return NewDisk(disk.base, DVD)
    with disk.base.open("rb") as source:
        if kind == RAW:
            return _write_vdi(stem, max(size, os.fstat(source.fileno()).st_size), source)
        copy = stem.with_suffix(f".{kind}")
        _copy(source, copy)
        return NewDisk(copy, HARD_DISK, size)


def _write_vdi(stem: Path, size_bytes: int, source: BinaryIO | None) -> NewDisk:
    path = stem.with_suffix(".vdi")
    vdi.write(path, size_bytes, source)
    return NewDisk(path, HARD_DISK)


def _copy(source: BinaryIO, target: Path) -> None:
    """Copy, in the kernel where it can: some file systems only share the blocks."""
    with target.open("xb") as file:
        left = os.fstat(source.fileno()).st_size
        while left > 0:
            sent = _copy_some(source.fileno(), file.fileno(), left)
            if not sent:
                break
            left -= sent
        os.fsync(file.fileno())


def _copy_some(source: int, target: int, most: int) -> int:
    if hasattr(os, "copy_file_range"):  # Linux
        return os.copy_file_range(source, target, min(most, 64 * _PIECE))
    return os.write(target, os.read(source, _PIECE))


def _content(file: BinaryIO) -> str:
    head = file.read(512)
    if head[vdi.SIGNATURE_AT : vdi.SIGNATURE_AT + 4] == vdi.SIGNATURE:
        return "vdi"
    if head.startswith((_VMDK, _VMDK_TEXT)):
        return "vmdk"
    if head.startswith(_VHD) or _end(file, 512).startswith(_VHD):
        return "vhd"
    file.seek(32769)  # ISO 9660: the volume descriptors begin at sector 16
    return ISO if file.read(5) == b"CD001" else RAW


def _is_text(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(_VMDK_TEXT)) == _VMDK_TEXT


def _end(file: BinaryIO, size: int) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return file.read(size)
