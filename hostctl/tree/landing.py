"""A tree from a guest, written beside its target: all or nothing, and nothing outside.

The guest is hostile. Every path is walked from the stage's own folder, name by name, without
following links; a file is created, never opened; a link may point only downwards of a folder that
the stage has itself. So no order of entries, and no name that a file system takes for another one,
reaches anything else. Python's `tarfile` filters are not used: they judge paths as text, and
several ways around that were found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal

from hostctl_channels.transfer import shown

from ..errors import OutputTooLarge
from .beneath import FOLDER, checked_path, clear, folder, open_folder, refused, remove
from .exclude import Exclude
from .tarstream import Entry, Event, Kind, Piece

__all__ = ["MAX_BYTES", "MAX_FILES", "Landing", "Policy"]

MAX_BYTES: Final = 16 << 30  # of one tree, holes counted; a guest must not fill a host's disk
MAX_FILES: Final = 500_000  # a Debian system has some 100 000
_STAGE: Final = ".hostctl-tree"
_NEWBORN_S: Final = 2.0  # between being made and being locked
_RWX: Final = 0o777
_HOLE: Final = bytes(64 * 1024)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Policy:
    """What a guest may make here.

    `links`: one that leads out of the tree is an error ("inside"), or left out ("skip").
    `owners` sets numeric owners, which root may; `special_bits` keeps setuid, setgid and sticky.
    """

    max_bytes: int = MAX_BYTES
    max_files: int = MAX_FILES
    links: Literal["inside", "skip"] = "inside"
    owners: bool = False
    special_bits: bool = False
    exclude: Exclude = field(default_factory=Exclude)


@dataclass(slots=True)
class Landed:
    """What has been written so far."""

    files: int = 0
    folders: int = 0
    links: int = 0
    size_bytes: int = 0
    skipped: list[str] = field(default_factory=list)


class Landing:
    """A stage beside `target`. Use it in a `with`: what is not committed is removed, or kept aside.

    `inside` makes it in the target, which is there, for `merge`: that may be another file system.
    `only` are the paths that may come.

    Raises:
        FileNotFoundError: the target's folder is missing.
    """

    def __init__(
        self,
        target: Path,
        policy: Policy,
        *,
        partial: bool = False,
        inside: bool = False,
        only: Container[bytes] | None = None,
    ) -> None:
        self._target = target
        self._home = target if inside else target.parent
        self._only = only
        self._policy = policy
        self._partial = partial
        self._file: int | None = None  # the descriptor of the file that is being written
        self._written = 0  # where the last byte of it is, so far
        self._entry: Entry | None = None
        self._folders: dict[bytes, Entry] = {}  # whose attributes are set at the end
        self._parent: tuple[bytes, int] | None = None  # the last folder used, open
        self._count = 0
        self._is_over = False
        self._times: os.stat_result | None = None
        self.landed = Landed()

    def __enter__(self) -> Landing:
        _sweep(self._home)
        name = f"{_STAGE}.{os.urandom(6).hex()}"
        self._stage = self._home / name
        self._stage.mkdir(mode=0o700)
        self._root = os.open(self._stage, FOLDER)
        fcntl.flock(self._root, fcntl.LOCK_EX)  # tells the next one that it is no leftover
        os.mkdir("tree", 0o700, dir_fd=self._root)
        self._tree = os.open("tree", FOLDER, dir_fd=self._root)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_file(whole=False)
        self._forget_parent()
        if self._partial and not self._is_over:
            with contextlib.suppress(OSError):
                self._set_folders()
            self._stage.joinpath("tree").rename(_free(self._target))
        shutil.rmtree(self._stage, ignore_errors=True)
        if self._times is not None:  # the stage was in it
            os.utime(self._target, ns=(self._times.st_atime_ns, self._times.st_mtime_ns))
        os.close(self._tree)
        os.close(self._root)

    def take(self, event: Event) -> None:
        """Write what has come.

        Raises:
            HostileTree: it would reach outside, or is nothing that a tree may have.
            OutputTooLarge: it is more than the policy allows.
            OSError: this host cannot, a full disk for example.
        """
        if isinstance(event, Piece):
            self._write(event)
            return
        self._end_file(whole=True)
        self._entry = event
        path = checked_path(event.path)
        if self.leaves_out(path):
            return
        if self._only is not None and path not in self._only:
            raise refused(path, "was not asked for")
        self._weigh(event)
        match event.kind:
            case Kind.FOLDER:
                self._add_folder(path, event)
            case Kind.FILE:
                self._add_file(path, event)
            case Kind.SYMLINK:
                self._add_symlink(path, event)
            case Kind.HARDLINK:
                self._add_hardlink(path, event)
            case Kind.OTHER:
                raise refused(path, "is a device or a FIFO", "leave it out with --exclude")

    def take_file(self, entry: Entry, content: BinaryIO) -> None:
        """Write a file of which only now is known how long it is: until the end of `content`."""
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        self.take(dataclasses.replace(entry, size_bytes=size))
        offset = 0
        while data := content.read(len(_HOLE)):
            self.take(Piece(offset, memoryview(data)))
            offset += len(data)

    def leaves_out(self, path: bytes) -> bool:
        """Tell whether the policy excludes a path of the tree, or a folder above it."""
        exclude, parts = self._policy.exclude, checked_path(path).split(b"/")
        if not exclude or not path:
            return False
        return any(exclude(b"/".join(parts[:end])) for end in range(1, len(parts) + 1))

    @property
    def room_bytes(self) -> int:
        """How much may still come."""
        return self._policy.max_bytes - self.landed.size_bytes

    def commit(self, *, replace: bool = False) -> None:
        """Give the target what has landed, by one rename; with `replace` the old one goes.

        Raises:
            FileExistsError: it is there, and nothing was said of replacing it. Nothing changed.
        """
        self._finish()
        tree = self._stage / "tree"
        if not os.path.lexists(self._target):
            tree.rename(self._target)
        elif replace:
            old = self._stage / "old"
            self._target.rename(old)
            try:
                tree.rename(self._target)
            except OSError:
                old.rename(self._target)
                raise
        else:
            raise FileExistsError(errno.EEXIST, "is there already", str(self._target))
        self._is_over = True

    def merge(self, folders: Sequence[tuple[bytes, Entry]], doomed: Sequence[bytes]) -> None:
        """Move each thing that landed over what the target has; the rest of it stays.

        `doomed` is removed first. `folders` are made where missing, and get their attributes in the
        end. Each file is replaced by one rename; an error half way leaves some of them new.
        """
        self._finish(with_folders=False)
        self._target.mkdir(exist_ok=True)
        target = os.open(self._target, FOLDER & ~os.O_NOFOLLOW)
        try:
            for path in doomed:
                remove(target, path)
            for path, _ in sorted(folders, key=lambda pair: pair[0].count(b"/")):
                with folder(target, path, conflicts=True):
                    pass
            self._move_all(target)
            for path, entry in sorted(folders, key=lambda pair: -pair[0].count(b"/")):
                with folder(target, path) as fd:
                    self._set(fd, entry)
        finally:
            os.close(target)
        self._times = os.stat(self._target)
        self._is_over = True

    # --- entries ------------------------------------------------------------------------------

    def _count_one(self) -> None:
        """Count an entry, or a folder that only the paths of others tell of."""
        self._count += 1
        if self._count > self._policy.max_files:
            text = f"the guest's tree has more than {self._policy.max_files} entries"
            raise OutputTooLarge(text, hint="raise --max-files")

    def _weigh(self, entry: Entry) -> None:
        self._count_one()
        landed, policy = self.landed, self._policy
        landed.size_bytes += entry.size_bytes
        if landed.size_bytes > policy.max_bytes:
            text = f"the guest's tree has more than {policy.max_bytes} bytes"
            raise OutputTooLarge(text, hint="raise --max-bytes")

    def _add_folder(self, path: bytes, entry: Entry) -> None:
        if path:
            parent, name = self._place(path)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                self._must_be_folder(parent, name, path)
            self.landed.folders += 1
        self._folders[path] = entry

    def _must_be_folder(self, parent: int, name: bytes, path: bytes) -> None:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise refused(path, "comes twice")

    def _add_file(self, path: bytes, entry: Entry) -> None:
        parent, name = self._place(path)
        try:
            self._file = os.open(name, _NEW, 0o600, dir_fd=parent)
        except FileExistsError as err:
            raise refused(path, "comes twice") from err
        self._written = 0
        self.landed.files += 1
        if not entry.size_bytes:
            self._end_file(whole=True)

    def _add_symlink(self, path: bytes, entry: Entry) -> None:
        parent, name = self._place(path)
        if not _stays_inside(entry.target, path.count(b"/")):
            if self._policy.links == "inside":
                raise refused(
                    path,
                    f"is a link out of the tree, to {shown(entry.target[:200])}",
                    "--links skip",
                )
            self.landed.skipped.append(shown(path))
            return
        try:
            os.symlink(entry.target, name, dir_fd=parent)
        except FileExistsError as err:
            raise refused(path, "comes twice") from err
        self._own(name, entry, parent)
        with contextlib.suppress(NotImplementedError):
            times = (entry.mtime_s, entry.mtime_s)
            os.utime(name, times, dir_fd=parent, follow_symlinks=False)
        self.landed.links += 1

    def _add_hardlink(self, path: bytes, entry: Entry) -> None:
        where, _, first = checked_path(entry.target).rpartition(b"/")
        parent, name = self._place(path)
        try:
            with folder(self._tree, where) as source:
                mode = os.stat(first or b".", dir_fd=source, follow_symlinks=False).st_mode
                if not stat.S_ISREG(mode):
                    raise refused(path, "is a hard link to what is no file")
                os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as err:
            raise refused(path, "is a hard link to what is not in the tree") from err
        except FileExistsError as err:
            raise refused(path, "comes twice") from err
        self.landed.files += 1

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the open folder that shall hold `path`, and its name there."""
        where, _, name = path.rpartition(b"/")
        if not name:
            raise refused(path, "has no name")
        if self._parent is None or self._parent[0] != where:
            self._forget_parent()
            self._parent = where, open_folder(self._tree, where, make=self._count_one)
        return self._parent[1], name

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    # --- content ------------------------------------------------------------------------------

    def _write(self, piece: Piece) -> None:
        """Write content; zeros are left out, and become holes where they fill a block."""
        if self._file is None:
            return  # of what is left out
        view, offset = piece.view, piece.offset
        while view:
            part = view[: len(_HOLE)]
            if part != _HOLE[: len(part)]:
                _write_all(self._file, part, offset)
                self._written = offset + len(part)
            offset += len(part)
            view = view[len(part) :]

    def _end_file(self, *, whole: bool) -> None:
        if self._file is None or self._entry is None:
            return
        file, self._file = self._file, None
        try:
            if whole:
                if self._written != self._entry.size_bytes:
                    os.ftruncate(file, self._entry.size_bytes)  # a hole at its end
                self._set(file, self._entry)
        finally:
            os.close(file)

    def _set(self, fd: int, entry: Entry) -> None:
        """Give an open file or folder its attributes. Its owner can always read and write it."""
        if self._policy.owners:
            os.fchown(fd, entry.uid, entry.gid)
        mode = entry.mode & (0o7777 if self._policy.special_bits else _RWX)
        os.fchmod(fd, mode | (0o700 if entry.kind is Kind.FOLDER else 0o600))
        os.utime(fd, (entry.mtime_s, entry.mtime_s))

    def _own(self, name: bytes, entry: Entry, parent: int) -> None:
        if self._policy.owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)

    # --- the end ------------------------------------------------------------------------------

    def _finish(self, *, with_folders: bool = True) -> None:
        self._end_file(whole=True)
        self._forget_parent()
        if with_folders:
            self._set_folders()

    def _set_folders(self) -> None:
        for path, entry in sorted(self._folders.items(), key=lambda item: -item[0].count(b"/")):
            with folder(self._tree, path) as fd:
                self._set(fd, entry)
        if root := self._folders.get(b""):
            self._set(self._tree, root)
        else:
            os.fchmod(self._tree, 0o755)

    def _move_all(self, target: int) -> None:
        """Rename everything but folders into the target."""
        for base, _, names, source in os.fwalk(b".", dir_fd=self._tree):
            links = [name for name in os.listdir(source) if _is_link(name, source)]
            files = {_name(name) for name in (*names, *links)}
            if not files:
                continue
            with folder(target, base.removeprefix(b".").lstrip(b"/"), conflicts=True) as into:
                for name in sorted(files):
                    clear(into, name)
                    os.rename(name, name, src_dir_fd=source, dst_dir_fd=into)


def _stays_inside(target: bytes, depth: int) -> bool:
    """Tell whether a link in a folder so deep cannot lead out of the tree.

    Going up is allowed at its begin only, where it goes through real folders; then every step goes
    down, perhaps through a link of which the same is true. A `..` further on could climb from
    wherever such a link leads, so text alone could not tell where it ends.
    """
    if not target or target.startswith(b"/") or b"\0" in target or len(target) > 4095:
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
    return ups <= depth and b".." not in parts[ups:]


def _write_all(file: int, view: memoryview, offset: int) -> None:
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def _name(name: object) -> bytes:
    """Return what fwalk gave as a name; it does not tell of what type."""
    return os.fsencode(name) if isinstance(name, str | bytes) else b""


def _is_link(name: str, fd: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _free(target: Path) -> Path:
    """Return a name for what is left of a tree that did not come whole."""
    path = target.with_name(f"{target.name}.partial")
    return path.with_name(f"{path.name}.{os.urandom(3).hex()}") if os.path.lexists(path) else path


def _sweep(folder: Path) -> None:
    """Remove stages whose process is gone: their locks are."""
    for path in folder.glob(f"{_STAGE}.*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, FOLDER)
            try:
                if time.time() - os.fstat(fd).st_ctime < _NEWBORN_S:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)
