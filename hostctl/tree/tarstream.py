"""A tar stream, taken apart as it comes: bytes in, events out, no I/O.

It is a guest's, so nothing in it is believed: headers are counted, names and pax records are
bounded, and no more than one header is ever kept. Whether an entry may be written is landing.py's.
Headers themselves are read by the standard library, which knows every dialect of numbers.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from ..errors import HostileTree

__all__ = ["Entry", "Event", "Kind", "Piece", "TarReader"]

BLOCK: Final = 512
MAX_NAME: Final = 4096  # Linux's PATH_MAX
MAX_PAX: Final = 64 * 1024  # GNU tar's records of one file are some hundred bytes
MAX_META: Final = 8  # headers about one entry: two long names, a pax record, a global one
MAX_ZEROS: Final = 4096  # blocks in a row: GNU tar pads to 20, and archives may be concatenated
MAX_EXTENTS: Final = 100_000  # of one sparse file
MAX_SIZE: Final = 1 << 62


class Kind(Enum):
    """What an entry is. OTHER: a device, a FIFO, or something unheard of."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    OTHER = "special file"


@dataclass(frozen=True, slots=True)
class Entry:
    """A header: what follows until the next one is its content. `size_bytes` counts holes."""

    kind: Kind
    path: bytes
    mode: int
    mtime_s: int
    size_bytes: int = 0
    target: bytes = b""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Content of the last entry. `view` is borrowed: it dies at the next `feed`."""

    offset: int
    view: memoryview


Event: TypeAlias = Entry | Piece

_KINDS: Final = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
}
_META: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)
_PAX_KEYS: Final = (b"path", b"linkpath", b"size", b"mtime")


class TarReader:
    """Push bytes with `feed`; it yields events. `close` tells whether the stream was whole."""

    def __init__(self) -> None:
        self._header = bytearray()  # a block that has not come whole
        self._meta: bytearray | None = None  # the content of a header about the next entry
        self._meta_type = b""
        self._metas = 0
        self._pax: dict[bytes, bytes] = {}
        self._left = 0  # of the content, then of its padding
        self._padding = 0
        self._extents: list[tuple[int, int]] = []  # where the content goes: offset, size
        self._sparse: _Sparse | None = None  # whose map goes on in the next block
        self._zeros = 0

    def feed(self, data: bytes | memoryview) -> Iterator[Event]:
        """Take the next bytes of the stream.

        Raises:
            HostileTree: this is no tar stream, or one that asks for too much. Take no more of it.
        """
        view = memoryview(data)
        while view:
            if self._left:
                size = min(self._left, len(view))
                yield from self._content(view[:size])
                view = view[size:]
            elif self._padding:
                size = min(self._padding, len(view))
                self._padding -= size
                view = view[size:]
            else:
                size = BLOCK - len(self._header)
                self._header += view[:size]
                view = view[size:]
                if len(self._header) == BLOCK:
                    block, self._header = bytes(self._header), bytearray()
                    yield from self._block(block)

    def close(self) -> None:
        """Say that the stream has ended. Raises HostileTree unless that was its end."""
        if not self._zeros or self._left or self._padding or self._header:
            raise HostileTree("the guest's tar stream ended too early")

    def _content(self, view: memoryview) -> Iterator[Event]:
        self._left -= len(view)
        if self._meta is not None:
            self._meta += view
            if not self._left:
                self._learn(bytes(self._meta))
            return
        while view:
            offset, size = self._extents[-1]
            part = view[:size]
            yield Piece(offset, part)
            view = view[len(part) :]
            self._extents.pop()
            if size > len(part):
                self._extents.append((offset + len(part), size - len(part)))

    def _block(self, block: bytes) -> Iterator[Event]:
        if self._sparse:
            yield from self._more_sparse(block)
            return
        if not block.strip(b"\0"):
            self._zeros += 1
            if self._zeros > MAX_ZEROS or self._metas:
                raise HostileTree("the guest's tar stream goes on after its end")
            return
        self._zeros = 0
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as err:
            raise HostileTree("what the guest sent is no tar stream") from err
        if not 0 <= info.size <= MAX_SIZE:
            raise HostileTree(f"the guest's tar stream has an entry of {info.size} bytes")
        if info.type in _META:
            self._expect_meta(info)
        else:
            yield from self._entry(info, block)

    def _expect_meta(self, info: tarfile.TarInfo) -> None:
        is_pax = info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
        self._metas += 1
        if self._metas > MAX_META or not 0 < info.size <= (MAX_PAX if is_pax else MAX_NAME):
            raise HostileTree("the guest's tar stream has a header that is too long")
        self._meta, self._meta_type = bytearray(), info.type
        self._expect(info.size)

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _learn(self, content: bytes) -> None:
        """Keep what a header said about the next entry."""
        self._meta = None
        if self._meta_type == tarfile.GNUTYPE_LONGNAME:
            self._pax[b"path"] = content.rstrip(b"\0")
        elif self._meta_type == tarfile.GNUTYPE_LONGLINK:
            self._pax[b"linkpath"] = content.rstrip(b"\0")
        elif self._meta_type != tarfile.XGLTYPE:  # what is said of all entries, we do not need
            self._pax.update(_records(content))

    def _entry(self, info: tarfile.TarInfo, block: bytes) -> Iterator[Event]:
        pax, self._pax, self._metas = self._pax, {}, 0
        kind = _KINDS.get(info.type, Kind.OTHER)
        has_content = kind in (Kind.FILE, Kind.OTHER)
        stored = _number(pax, b"size", info.size) if has_content else 0
        entry = Entry(
            kind,
            pax.get(b"path", os.fsencode(info.name)),
            info.mode,
            _number(pax, b"mtime", int(info.mtime)),
            stored,
            pax.get(b"linkpath", os.fsencode(info.linkname)),
            info.uid,
            info.gid,
        )
        if info.type == tarfile.GNUTYPE_SPARSE:
            self._sparse = _Sparse(entry, stored, *_old_gnu(block))
            if not self._sparse.goes_on:
                yield from self._begin_sparse(self._sparse)
            return
        self._extents = [(0, stored)]
        self._expect(stored)
        yield entry

    def _more_sparse(self, block: bytes) -> Iterator[Event]:
        assert self._sparse
        self._sparse.extents += _extents(block[:504])
        self._sparse.goes_on = bool(block[504])
        if len(self._sparse.extents) > MAX_EXTENTS:
            raise HostileTree("the guest's tar stream has a file with too many holes")
        if not self._sparse.goes_on:
            yield from self._begin_sparse(self._sparse)

    def _begin_sparse(self, sparse: _Sparse) -> Iterator[Event]:
        end = 0
        for offset, size in sparse.extents:
            if offset < end or offset + size > sparse.real_size:
                raise HostileTree("the guest's tar stream has a file with impossible holes")
            end = offset + size
        if sum(size for _, size in sparse.extents) != sparse.stored:
            raise HostileTree("the guest's tar stream has a file with impossible holes")
        self._sparse = None
        self._extents = [extent for extent in reversed(sparse.extents) if extent[1]]
        self._expect(sparse.stored)
        entry = sparse.entry
        yield Entry(
            entry.kind,
            entry.path,
            entry.mode,
            entry.mtime_s,
            sparse.real_size,
            entry.target,
            entry.uid,
            entry.gid,
        )


@dataclass(slots=True)
class _Sparse:
    """A sparse file in GNU tar's own format: its map follows the header, before the content."""

    entry: Entry
    stored: int
    extents: list[tuple[int, int]]
    goes_on: bool
    real_size: int


def _old_gnu(block: bytes) -> tuple[list[tuple[int, int]], bool, int]:
    """Read the map's begin in a header: four extents, whether there is more, the file's size."""
    return _extents(block[386:482]), bool(block[482]), _field(block[483:495])


def _extents(text: bytes) -> list[tuple[int, int]]:
    rows = (text[at : at + 24] for at in range(0, len(text), 24))
    return [(_field(row[:12]), _field(row[12:])) for row in rows if row.strip(b"\0 ")]


def _field(text: bytes) -> int:
    """Read a number of a header: octal, or binary after a byte of 0x80."""
    try:
        value = int.from_bytes(text[1:], "big") if text[0] == 0x80 else int(text.strip(b"\0 "), 8)
    except ValueError as err:
        raise HostileTree("what the guest sent is no tar stream") from err
    if not 0 <= value <= MAX_SIZE:
        raise HostileTree("the guest's tar stream has an impossible number")
    return value


def _records(content: bytes) -> dict[bytes, bytes]:
    """Read pax records: `LENGTH KEY=VALUE\\n`, the length being that of the whole."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(content) and content[at]:
        digits, space, _ = content[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        fits = at + length <= len(content)
        if not space or not equals or not fits or not record.endswith(b"\n"):
            raise HostileTree("the guest's tar stream has a record that cannot be read")
        if key.startswith(b"GNU.sparse."):
            raise HostileTree("the guest's tar keeps holes in a format that is not known here")
        if key in _PAX_KEYS:
            found[key] = value
        at += length
    return found


def _number(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    """Read a number of a pax record; the fraction of a time is dropped."""
    text = pax.get(key, b"%d" % default).partition(b".")[0]
    if not text.removeprefix(b"-").isdigit() or len(text) > 19:
        raise HostileTree("the guest's tar stream has an impossible number")
    value = int(text)
    if abs(value) > MAX_SIZE or (key == b"size" and value < 0):
        raise HostileTree("the guest's tar stream has an impossible number")
    return value
