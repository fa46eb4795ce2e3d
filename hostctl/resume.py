"""One large file in pieces, so that a transfer that broke off goes on where it was.

What has come is kept beside the target, as `.NAME.hostctl-part`. It counts only when both sides
hold the same bytes up to its end, which a digest tells; otherwise the transfer begins anew. Holes
are not sent, where the source's side can tell them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from hostctl_channels.errors import RemoteProtocolError, ShortSource, TransferFailed
from hostctl_channels.interface import Capability, Channel, FileInfo, Progress, PutOptions
from hostctl_channels.transfer import checked, shown

from .tree.packing import extents
from .tree.remote import Remote

__all__ = ["get_resumable", "part_of", "put_resumable"]

BLOCK: Final = 64 * 1024
PUT_BYTES: Final = 16 << 20  # a piece: small beside a guest's memory; it costs some 20 ms
GET_BYTES: Final = 16 << 20  # the same, held whole here
SLOW_BYTES: Final = 64 * 1024  # the same on a channel without live streams, such as a serial line
_MAX_MAP: Final = 16 << 20
_HELD: Final = re.compile(rb"\s*(\d{1,18})\s+([0-9a-f]{64})\b.*", re.DOTALL)
_FACTS: Final = re.compile(rb"([0-9a-f]{1,8}) (-?\d{1,12}) (\d{1,18})\s*")


def part_of(path: bytes) -> bytes:
    """Return where a file that has not come whole is kept."""
    folder, slash, name = path.rpartition(b"/")
    return folder + slash + b".%s.hostctl-part" % name[:200]


async def put_resumable(
    channel: Channel,
    source: BinaryIO,
    size_bytes: int,
    path: bytes,
    options: PutOptions,
    progress: Progress | None = None,
) -> FileInfo:
    """Write `source` to `path`, beginning where an earlier call broke off.

    Raises:
        TransferFailed: the guest could not. The target is as it was; what has come stays in the
            guest as `part_of(path)`, for the next call.
    """
    path, remote, base = checked(path), Remote(channel), source.tell()
    part = part_of(path)
    start = await _resume_put(remote, source, base, size_bytes, part)
    if progress:
        progress(start)
    for offset, size in _missing(source, base, size_bytes, start):
        source.seek(base + offset)
        data = source.read(size)
        if len(data) < size:
            raise ShortSource(errno.EIO, f"{shown(path)}: its source became shorter", path=path)
        await channel.put(io.BytesIO(data), size, part + b".new")
        await remote.ask("append", part, part + b".new", str(offset))
        if progress:
            progress(offset + size)
    sha256 = await _verify_put(remote, source, base, part, options)
    mode = "" if options.mode is None else f"{options.mode:o}"
    mtime = "" if options.mtime_s is None else str(round(options.mtime_s))
    words = (str(size_bytes), mode, mtime, options.owner or "")
    await remote.ask("complete", part, path, *words)
    return FileInfo(size_bytes, options.mode, options.mtime_s, sha256)


async def _resume_put(
    remote: Remote, source: BinaryIO, base: int, size_bytes: int, part: bytes
) -> int:
    """Return how much of the source the guest holds; what differs is removed."""
    match = _HELD.fullmatch(await remote.ask("held", part))
    if match is None:
        return 0
    size = int(match[1])
    source.seek(base)
    if 0 < size <= size_bytes and _digest(source, size) == match[2].decode():
        return size
    await remote.ask("drop", part)
    return 0


async def _verify_put(
    remote: Remote, source: BinaryIO, base: int, part: bytes, options: PutOptions
) -> str | None:
    """Compare the whole part with the source, if that was asked for; what differs is removed."""
    if options.verify is None:
        return None
    match = _HELD.fullmatch(await remote.ask("held", part))
    size = int(match[1]) if match else 0
    source.seek(base)
    sha256 = _digest(source, size)
    if match is not None and match[2].decode() != sha256:
        await remote.ask("drop", part)
        raise TransferFailed(errno.EIO, f"{shown(part)}: not what was sent", path=part)
    return sha256


def _missing(source: BinaryIO, base: int, size_bytes: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each piece that is to be sent."""
    for begin, length in _data(source, base, size_bytes):
        end = begin + length
        for offset in range(max(begin, start), end, PUT_BYTES):
            yield offset, min(PUT_BYTES, end - offset)


def _data(source: BinaryIO, base: int, size_bytes: int) -> list[tuple[int, int]]:
    """Return where the source has data, if it is a file that can tell."""
    try:
        status = os.fstat(source.fileno())
    except (OSError, AttributeError):
        return [(0, size_bytes)]
    if base or not stat.S_ISREG(status.st_mode) or status.st_blocks * 512 >= size_bytes:
        return [(0, size_bytes)]
    return extents(source, size_bytes)


async def get_resumable(
    channel: Channel,
    path: bytes,
    target: Path,
    *,
    verify: str | None = None,
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> FileInfo:
    """Read the guest's file to `target`, beginning where an earlier call broke off.

    Raises:
        TransferFailed: the guest could not, or the file changed meanwhile. The target is as it was;
            what has come stays beside it, for the next call.
    """
    path, remote = checked(path), Remote(channel)
    facts = await _facts(remote, path)
    mode, mtime_s, size = facts
    if max_bytes is not None and size > max_bytes:
        raise TransferFailed(errno.EFBIG, f"{shown(path)}: more than {max_bytes} bytes", path=path)
    part = Path(os.fsdecode(part_of(os.fsencode(target))))
    with _opened(part) as file:
        start = await _resume_get(remote, path, file, size)
        step = GET_BYTES if Capability.STREAMS in channel.capabilities else SLOW_BYTES
        for offset, length in await _wanted(remote, path, start, size, step):
            count = -(-length // BLOCK)
            words = (path, str(offset // BLOCK), str(count))
            data = await remote.ask("piece", *words, max_bytes=count * BLOCK)
            if len(data) < length:
                raise TransferFailed(errno.EIO, f"{shown(path)}: it became shorter", path=path)
            if data.count(0) < len(data):  # nothing but zeros is left as a hole
                file.seek(offset)
                file.write(data[:length])
            if progress:
                progress(offset + length)
        file.truncate(size)
        sha256 = await _verify_get(remote, path, file, facts, verify)
    _place(part, target)
    return FileInfo(size, mode & 0o7777, float(mtime_s), sha256)


async def _facts(remote: Remote, path: bytes) -> tuple[int, int, int]:
    match = _FACTS.fullmatch(await remote.ask("facts", path))
    if match is None:
        raise RemoteProtocolError("not the facts of a file")
    return int(match[1], 16), int(match[2]), int(match[3])


async def _resume_get(remote: Remote, path: bytes, file: BinaryIO, size: int) -> int:
    """Return how much is here already, in whole blocks; what differs is dropped."""
    held = min(file.seek(0, os.SEEK_END), size) // BLOCK * BLOCK
    if held:
        match = _HELD.fullmatch(await remote.ask("held", path, str(held // BLOCK)))
        file.seek(0)
        if match is None or _digest(file, held) != match[2].decode():
            held = 0
    file.truncate(held)
    return held


async def _wanted(
    remote: Remote, path: bytes, start: int, size: int, step: int
) -> list[tuple[int, int]]:
    """Return the pieces to ask for, in whole blocks; without the holes, if the guest tells them."""
    lines = (await remote.ask("data", path, max_bytes=_MAX_MAP)).splitlines()
    whole = [(0, size)]
    if lines and lines[-1] == b"end":
        pairs = [line.split() for line in lines[:-1]]
        if all(len(pair) == 2 and all(word.isdigit() for word in pair) for pair in pairs):
            whole = [(int(offset), int(length)) for offset, length in pairs]
    found: list[tuple[int, int]] = []
    at = start
    for offset, length in whole:
        at = max(at, offset // BLOCK * BLOCK)
        end = min(offset + length, size)
        while at < end:
            piece = min(step, size - at, -(-(end - at) // BLOCK) * BLOCK)
            found.append((at, piece))
            at += piece
    return found


async def _verify_get(
    remote: Remote, path: bytes, file: BinaryIO, facts: tuple[int, int, int], verify: str | None
) -> str | None:
    """See that the file did not change meanwhile, and compare digests if that was asked for."""
    sha256 = None
    if verify is not None:
        match = _HELD.fullmatch(await remote.ask("held", path))
        file.seek(0)
        sha256 = _digest(file, facts[2])
        if match is None or match[2].decode() != sha256:
            file.truncate(0)
            raise TransferFailed(errno.EIO, f"{shown(path)}: its digest differs", path=path)
    if await _facts(remote, path) != facts:
        raise TransferFailed(errno.EIO, f"{shown(path)}: it changed meanwhile", path=path)
    return sha256


def _opened(part: Path) -> BinaryIO:
    """Open what has come before, or a new file; never through a link, and for one at a time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(part, flags, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        file.close()
        text = f"{part}: another transfer is at work on it"
        raise TransferFailed(errno.EBUSY, text, path=os.fsencode(part)) from err
    return file


def _place(part: Path, target: Path) -> None:
    """Let the part take the target's place, with the mode that the target has, or a new file."""
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    part.chmod(mode)
    part.rename(os.path.realpath(target))


def _digest(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size and (data := file.read(min(size, 1 << 20))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()
