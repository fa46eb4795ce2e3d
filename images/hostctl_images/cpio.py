"""The cpio "newc" archive that kernels take as initramfs: a writer that needs no root and no tool.

The same entries give the same bytes: no times, owners as told, names sorted, inodes counted.
Format: Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

__all__ = ["Entry", "directory", "file", "link", "node", "write"]

TRAILER = "TRAILER!!!"
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of any kind. `data` is the content, or the target of a link."""

    mode: int
    data: bytes = b""
    owner: tuple[int, int] = (0, 0)
    device: tuple[int, int] = (0, 0)


def file(data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | mode, data)


def directory(mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A folder; parents that nobody names are made as root's, 0755."""
    return Entry(stat.S_IFDIR | mode, owner=owner)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def node(major: int, minor: int, mode: int) -> Entry:
    """A character device; in an archive it takes no root to make one."""
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def write(out: BinaryIO, entries: Mapping[str, Entry]) -> int:
    """Write an archive of relative path → entry, and return its size.

    The path "." is the root folder itself: the kernel's own is writable for all.

    Raises:
        ValueError: a path is absolute, empty, climbs, or lies below something that is no folder.
    """
    whole = _with_parents(entries)
    size = 0
    # A folder sorts before what is in it.
    for number, path in enumerate(sorted(whole), start=1):
        size += _write_entry(out, path, whole[path], number)
    size += _write_entry(out, TRAILER, Entry(0), 0)
    return size + out.write(b"\0" * (-size % BLOCK))


def _with_parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    whole = dict(entries)
    for path in entries:
        _check(path)
        for parent in _parents(path):
            if not stat.S_ISDIR(whole.setdefault(parent, directory()).mode):
                raise ValueError(f"{path} lies below {parent}, which is no folder")
    return whole


def _parents(path: str) -> Iterable[str]:
    return (str(parent) for parent in PurePosixPath(path).parents if parent.name)


def _check(path: str) -> None:
    pure = PurePosixPath(path)
    if str(pure) != path or pure.is_absolute() or ".." in pure.parts or path == TRAILER:
        raise ValueError(f"not a path for an archive: {path!r}")


def _write_entry(out: BinaryIO, path: str, entry: Entry, number: int) -> int:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(number, entry.mode, *entry.owner, links, 0, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    size = out.write(head + b"\0" * (-len(head) % 4))
    size += out.write(entry.data)
    return size + out.write(b"\0" * (-len(entry.data) % 4))
