"""Local ends of a transfer: a source of known size, a destination replaced whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from .errors import ConfigError

__all__ = ["replacing", "sized"]

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


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
