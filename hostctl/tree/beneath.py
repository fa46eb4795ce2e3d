"""Ways down into a folder that may hold anything: name by name, through no link.

Paths are bytes relative to an open folder, as `checked_path` returns them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Final

from hostctl_channels.transfer import shown

from ..errors import HostileTree

__all__ = ["FOLDER", "checked_path", "clear", "folder", "open_folder", "refused", "remove"]

MAX_DEPTH: Final = 200
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def checked_path(path: bytes) -> bytes:
    """Return an entry's path relative to its tree's root, which is empty.

    Raises:
        HostileTree: it is absolute, climbs, or cannot be a path.
    """
    if path.startswith(b"/"):
        raise refused(path, "is an absolute path")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise refused(path, "leads out of the tree")
    if b"\0" in path or len(path) > 4096 or any(len(part) > 255 for part in parts):
        raise refused(path, "is too long, or has a NUL")
    if len(parts) > MAX_DEPTH:
        raise refused(path, f"is deeper than {MAX_DEPTH} folders")
    return b"/".join(parts)


def open_folder(
    root: int, path: bytes, *, make: Callable[[], None] | None = None, conflicts: bool = False
) -> int:
    """Open a folder below `root`, step by step, through no link.

    With `make` what is missing is created, and it is called before each; with `conflicts` too, and
    what is in the way and is no folder is removed.
    """
    fd = os.dup(root)
    for name in path.split(b"/") if path else ():
        above = fd
        try:
            fd = _step(above, name, make, conflicts)
        except OSError as err:
            if err.errno in (errno.ELOOP, errno.ENOTDIR):
                raise refused(path, "goes through what is no folder") from err
            raise
        finally:
            os.close(above)
    return fd


def _step(above: int, name: bytes, make: Callable[[], None] | None, conflicts: bool) -> int:
    try:
        return os.open(name, FOLDER, dir_fd=above)
    except FileNotFoundError:
        if make is None and not conflicts:
            raise
        if make is not None:
            make()
        os.mkdir(name, 0o755, dir_fd=above)
        return os.open(name, FOLDER, dir_fd=above)
    except OSError as err:
        if not conflicts or err.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
    os.unlink(name, dir_fd=above)
    os.mkdir(name, 0o755, dir_fd=above)
    return os.open(name, FOLDER, dir_fd=above)


@contextlib.contextmanager
def folder(root: int, path: bytes, *, conflicts: bool = False) -> Iterator[int]:
    """Hold a folder open; see `open_folder`."""
    fd = open_folder(root, path, conflicts=conflicts)
    try:
        yield fd
    finally:
        os.close(fd)


def remove(root: int, path: bytes) -> None:
    """Remove a thing with all that is in it; fine when it is not there."""
    above, _, name = path.rpartition(b"/")
    with contextlib.suppress(FileNotFoundError), folder(root, above) as fd:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(os.fsdecode(name), dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)


def clear(fd: int, name: bytes) -> None:
    """Make way for a file where a folder is; anything else a rename replaces."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            shutil.rmtree(os.fsdecode(name), dir_fd=fd)


def refused(path: bytes, why: str, hint: str | None = None) -> HostileTree:
    """Return the error that says what is wrong with an entry of a guest's tree."""
    return HostileTree(f"the guest's tree: {shown(path[:200]) or '.'} {why}", path, hint=hint)
