"""Local ends of a transfer: a source of known size, a destination replaced whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from .errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["SharedSource", "replacing", "sized"]

SPOOL_BYTES = 8 * 1024 * 1024  # of a pipe, kept in memory; more goes to an unnamed file


@contextlib.contextmanager
def sized(source: str | os.PathLike[str] | BinaryIO | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """Yield `source` as an open file, with the number of bytes from its position to its end.

    An open file stays the caller's. What cannot seek (a pipe) is read to its end first.

    Raises:
        ConfigError: the path is a directory, a device or the like.
        OSError: it cannot be opened or read.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
    elif isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{os.fspath(source)} is not a regular file")
            yield file, status.st_size
    elif source.seekable():
        start = source.tell()
        end = source.seek(0, os.SEEK_END)
        source.seek(start)
        yield source, end - start
    else:
        import shutil  # here, for they are slow to import and seldom used
        import tempfile

        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            shutil.copyfileobj(source, spool)
            size_bytes = spool.tell()
            spool.seek(0)
            yield cast(BinaryIO, spool), size_bytes


@contextlib.contextmanager
def replacing(destination: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """Yield a file to write; it takes `destination`'s place when the body succeeds.

    After any failure the old file is as it was, and nothing is left beside it. An open file, or a
    path that is a device or a pipe, is written as it is.

    Raises:
        OSError: the folder is missing or read-only, the path is a directory, the disk is full.
    """
    if not isinstance(destination, (str, os.PathLike)):
        yield destination
        return
    target = Path(
        os.path.realpath(destination)
    )  # of a link, the file it names is replaced, not the link
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        with target.open("wb", buffering=0) as file:
            yield cast(BinaryIO, file)
        return
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{target} is a directory")
    temporary = target.with_name(f".{target.name[:200]}.{os.urandom(4).hex()}.part")
    with open(temporary, "xb", buffering=0) as file:
        try:
            yield cast(BinaryIO, file)
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class SharedSource:
    """A source that is opened once, and read by many: each has a view with a position of its own.

    As a context manager. A file that has a descriptor and can seek is read where it is, from its
    present position on; anything else (a pipe) is copied to an unnamed file first, once.

    Raises:
        ConfigError: the path is a directory, a device or the like.
        OSError: it cannot be opened or read.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO | bytes) -> None:
        self._source = source
        self._stack = contextlib.ExitStack()
        self._fd = -1
        self._start = self._end = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if not isinstance(self._source, bytes):
                self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size_bytes(self) -> int:
        """How long each view is."""
        if isinstance(self._source, bytes):
            return len(self._source)
        return self._end - self._start

    def view(self) -> BinaryIO:
        """Return the whole of it, as a file of its own; good until the context is left."""
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        return cast(BinaryIO, _View(self._fd, self._start, self._end))

    def _open(self, stack: contextlib.ExitStack) -> None:
        assert not isinstance(self._source, bytes)
        if isinstance(self._source, (str, os.PathLike)) or _is_regular(self._source):
            file, size_bytes = stack.enter_context(sized(self._source))
        else:
            file, size_bytes = _spooled(self._source, stack)
        self._fd, self._start = file.fileno(), file.tell()
        self._end = self._start + size_bytes


class _View(io.RawIOBase):
    """A part of an open file, by `pread`: neither moves the file's own position nor needs it."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        super().__init__()
        self._fd, self._start, self._end, self._at = fd, start, end, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, base + offset)
        return self._at - self._start

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._end - self._at)]
        count = os.preadv(self._fd, [view], self._at) if view else 0
        self._at += count
        return count


def _is_regular(file: BinaryIO) -> bool:
    try:
        return file.seekable() and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # no descriptor: it is in memory, or made as it is read
        return False


def _spooled(source: BinaryIO, stack: contextlib.ExitStack) -> tuple[BinaryIO, int]:
    import shutil  # here, for they are slow to import and seldom used
    import tempfile

    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 the stack is one
    shutil.copyfileobj(source, spool, SPOOL_BYTES // 8)
    spool.flush()
    size_bytes = spool.tell()
    spool.seek(0)
    return cast(BinaryIO, spool), size_bytes


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
