"""A folder of this host as tar archives for a guest: what is in it, and its bytes.

An archive is never larger than a few MiB, however large a file is, so neither side needs room for
more. They have `tree/`, folders after what is in them (so that their times last, whatever the
guest's tar does), `pieces/` of large and sparse files with lines of shell to put them together
(`now`), and at last `plan`: lines for what tar cannot do, or in one dialect only. guestside/tree.sh
runs them. That the plan is there also tells that all has come.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NamedTuple

from hostctl_channels.errors import ShortSource
from hostctl_channels.transfer import shown

from .exclude import Exclude

__all__ = ["Archive", "Found", "Item", "Packing", "Plan", "extents", "quoted", "scan"]

# One archive: small beside a guest's memory, where it may lie, and the 64 MiB promised here; large
# beside the 20 ms that each costs. Not a pipe into tar: that is three times as slow under TCG.
ARCHIVE: Final = 8 << 20
_STAGE: Final = b".hostctl-tree."  # of another transfer, or a killed one
_PAGE: Final = 4096  # extents begin and end with one
_LARGE: Final = 64 * 1024  # what `fill` counts in where it can: each block is two system calls
_SPARSE_BYTES: Final = 64 * 1024  # what is smaller is sent whole
_LINE: Final = 20_000  # bytes of words in one command of a plan; the guest puts a path before each


@dataclass(frozen=True, slots=True)
class Item:
    """A thing in a local folder. `path` is relative to it, empty for itself."""

    path: bytes
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


@dataclass(slots=True)
class Found:
    """What a local folder has: `items`, folders after what is in them; `skipped`: special files."""

    items: list[Item] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What is to be sent, without holes, as far as the file system tells."""
        files = (item.status for item in self.items if item.is_file)
        return sum(min(status.st_size, status.st_blocks * 512 + _PAGE) for status in files)


def scan(root: bytes, exclude: Exclude) -> Found:
    """List a local folder. Links in it are not followed, its own name may be one.

    Raises:
        OSError: something in it cannot be looked at, or it is no folder.
    """
    found = Found()
    _visit(root, b"", exclude, found)
    found.items.append(Item(b"", os.stat(root)))
    return found


def _visit(root: bytes, folder: bytes, exclude: Exclude, found: Found) -> None:
    with os.scandir(os.path.join(root, folder) if folder else root) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        path = os.path.join(folder, entry.name)
        if exclude(path) or entry.name.startswith(_STAGE):
            continue
        item = Item(path, entry.stat(follow_symlinks=False))
        if item.is_folder:
            _visit(root, path, exclude, found)
        elif not item.is_file and not item.is_link:
            found.skipped.append(shown(path))
            continue
        found.items.append(item)


def extents(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Return where a file has data: offset and size, whole pages, but for its end."""
    found: list[tuple[int, int]] = []
    end = 0
    try:
        while end < size:
            begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = min(os.lseek(file.fileno(), begin, os.SEEK_HOLE), size)
            begin -= begin % _PAGE
            if found and begin < sum(found[-1]):
                begin = sum(found[-1])
            found.append((begin, end - begin))
            end += -end % _PAGE
    except OSError as err:
        if err.errno != errno.ENXIO:  # nothing but a hole up to the end
            raise
    return found


def quoted(path: bytes) -> bytes:
    """Write a path for a shell of the guest."""
    return shlex.quote(path.decode("latin-1")).encode("latin-1")


class Plan:
    """Lines of shell, run in the stage of the guest when all has come."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, *words: bytes | int) -> None:
        """Add a command; its words are quoted."""
        texts = (b"%d" % word if isinstance(word, int) else quoted(word) for word in words)
        self._lines.append(b" ".join(texts))

    def add_many(self, head: tuple[bytes, ...], paths: Iterable[bytes]) -> None:
        """Add a command with these paths as its last words, or several if they are too many."""
        batch: list[bytes] = []
        size = 0
        for path in paths:
            if batch and size + len(path) > _LINE:
                self.add(*head, *batch)
                batch, size = [], 0
            batch.append(path)
            size += len(path) + 1
        if batch:
            self.add(*head, *batch)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __bytes__(self) -> bytes:
        return b"".join(line + b"\n" for line in self._lines) + b":\n"


@dataclass(frozen=True, slots=True)
class Looks:
    """What of a file's attributes goes along."""

    owners: bool = False
    special_bits: bool = False

    def mode(self, status: os.stat_result) -> int:
        return stat.S_IMODE(status.st_mode) & (0o7777 if self.special_bits else 0o777)

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        return (status.st_uid, status.st_gid) if self.owners else (0, 0)


class Archive(NamedTuple):
    """One archive, and how many of its bytes are content of files."""

    data: bytes
    content_bytes: int


class Packing:
    """The archives of some items of a folder. Iterate once; it reads the files as it goes.

    Raises, while it is iterated:
        ShortSource: a file became shorter meanwhile. OSError: one cannot be read.
    """

    def __init__(
        self,
        root: bytes,
        items: Iterable[Item],
        looks: Looks,
        plan: Plan | None = None,
    ) -> None:
        self._root = root
        self._items = items
        self._looks = looks
        self._last = Plan() if plan is None else plan  # what comes after our own lines
        self._plan = Plan()
        self._now = Plan()  # for the archive at hand
        self._content = 0  # bytes of files in the buffer
        self._buffer = bytearray()
        self._first: dict[tuple[int, int], bytes] = {}  # of files with several names
        self._late: set[bytes] = set()  # made by the plan, not by tar
        self._count = 0  # of pieces

    def __iter__(self) -> Iterator[Archive]:
        """Yield the archives, the last one with the plan."""
        for item in self._items:
            yield from self._item(item)
        text = bytes(self._plan) + bytes(self._last)
        yield from self._add(tarfile.TarInfo("plan"), text)
        yield self._archive()

    def _item(self, item: Item) -> Iterator[Archive]:
        if item.is_folder:
            yield from self._add(self._info(item, tarfile.DIRTYPE))
            if any(os.path.dirname(path) == item.path for path in self._late):
                self._dress(item)  # the plan will have changed its times
        elif item.is_link:
            info = self._info(item, tarfile.SYMTYPE)
            info.linkname = os.fsdecode(os.readlink(self._local(item)))
            yield from self._add(info)
            if self._looks.owners:  # busybox's tar forgets it
                owner = b"%d:%d" % self._looks.owner(item.status)
                self._plan.add(b"chown", b"-h", owner, _in_tree(item.path))
        else:
            yield from self._file(item)

    def _local(self, item: Item) -> bytes:
        return os.path.join(self._root, item.path) if item.path else self._root

    def _info(self, item: Item, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(os.fsdecode(_in_tree(item.path)))
        info.type = kind
        info.mode = self._looks.mode(item.status)
        info.mtime = max(0, int(item.status.st_mtime))  # whole seconds: all that every tar knows
        info.uid, info.gid = self._looks.owner(item.status)
        return info

    def _file(self, item: Item) -> Iterator[Archive]:
        status = item.status
        key = status.st_dev, status.st_ino
        if status.st_nlink > 1 and (first := self._first.get(key)) is not None:
            yield from self._hardlink(item, first)
            return
        self._first[key] = item.path
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self._local(item), flags), "rb", buffering=0) as raw:
            file: BinaryIO = raw
            has_holes = status.st_blocks * 512 < status.st_size >= _SPARSE_BYTES
            if has_holes or status.st_size > ARCHIVE:
                yield from self._in_pieces(item, file)
            else:
                info = self._info(item, tarfile.REGTYPE)
                info.size = status.st_size
                yield from self._add(info)
                yield from self._copy(file, item, 0, info.size)

    def _hardlink(self, item: Item, first: bytes) -> Iterator[Archive]:
        if first in self._late:
            self._plan.add(b"ln", _in_tree(first), _in_tree(item.path))
            self._late.add(item.path)
            return
        info = self._info(item, tarfile.LNKTYPE)
        info.linkname = os.fsdecode(_in_tree(first))
        yield from self._add(info)

    def _in_pieces(self, item: Item, file: BinaryIO) -> Iterator[Archive]:
        """Send what is no hole, as files of their own that the plan puts together."""
        self._late.add(item.path)
        path = _in_tree(item.path)
        self._now.add(b"mkdir", b"-p", os.path.dirname(path))
        self._now.add(b"hole", item.status.st_size, path)
        for offset, size in _pieces(extents(file, item.status.st_size)):
            info = tarfile.TarInfo(f"pieces/{self._count}")
            info.size = size
            yield from self._add(info)
            unit = _PAGE if offset % _LARGE else _LARGE
            self._now.add(b"fill", self._count, unit, offset // unit, path)
            self._count += 1
            yield from self._copy(file, item, offset, size)
        self._dress(item)

    def _dress(self, item: Item) -> None:
        """Let the plan set what tar sets of others."""
        status, path = item.status, _in_tree(item.path)
        if self._looks.owners:
            self._plan.add(b"chown", b"%d:%d" % self._looks.owner(status), path)
        mode = b"%o" % self._looks.mode(status)
        self._plan.add(b"look", mode, max(0, int(status.st_mtime)), path)

    def _copy(self, file: BinaryIO, item: Item, offset: int, size: int) -> Iterator[Archive]:
        file.seek(offset)
        left = size
        while left:
            data = file.read(left)
            if not data:
                path = self._local(item)
                raise ShortSource(
                    errno.EIO, f"{shown(path)} became shorter while it was read", path=path
                )
            left -= len(data)
            self._buffer += data
        self._content += size
        self._buffer += bytes(-size % 512)
        if len(self._buffer) >= ARCHIVE:
            yield self._archive()

    def _add(self, info: tarfile.TarInfo, content: bytes = b"") -> Iterator[Archive]:
        info.size = info.size or len(content)
        if len(self._buffer) + info.size > ARCHIVE and self._buffer:
            yield self._archive()
        self._buffer += info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        self._buffer += content + bytes(-len(content) % 512)

    def _archive(self) -> Archive:
        if self._now:
            text = bytes(self._now)
            info = tarfile.TarInfo("now")
            info.size = len(text)
            self._buffer += info.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % 512)
        self._buffer += bytes(2 * 512)
        whole = Archive(bytes(self._buffer), self._content)
        self._buffer, self._content, self._now = bytearray(), 0, Plan()
        return whole


def _pieces(extents: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut extents into what fits into an archive."""
    for offset, size in extents:
        for at in range(offset, offset + size, ARCHIVE):
            yield at, min(ARCHIVE, offset + size - at)


def _in_tree(path: bytes) -> bytes:
    return b"tree/" + path if path else b"tree"
