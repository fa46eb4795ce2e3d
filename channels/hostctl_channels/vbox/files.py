"""One plain file by guest control's own calls: no program runs in the guest, so it is quick.

What these calls cannot do (owners, times, digests, names that are not ASCII) `qga.files` does with
the guest's own tools. Either way a put is written beside its target, and renamed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import BinaryIO, Final

from ..deadline import Deadline
from ..errors import HostctlError, RequestFailed, ShortSource, TransferFailed
from ..interface import FileInfo, Progress, Pulse, PutOptions
from ..transfer import checked, shown
from .control import Node, Session
from .places import is_carried

__all__ = ["download", "is_plain", "upload"]

_CHUNK: Final = 512 * 1024  # 60 ms of a guest that is interpreted; others' calls come in between
_PIECE_S: Final = 60.0  # without a byte
_CLEAN_UP_S: Final = 5.0
_MODE: Final = 0o644


def is_plain(path: bytes, options: PutOptions | None, verify: str | None) -> bool:
    """Tell whether guest control's own calls do."""
    if verify or (options and (options.mtime_s is not None or options.owner or options.verify)):
        return False
    return is_carried(path) and path.decode().isprintable()


async def upload(
    session: Session,
    pulse: Pulse,
    source: BinaryIO,
    size_bytes: int,
    path: bytes,
    options: PutOptions,
    progress: Progress | None,
) -> FileInfo:
    """Write `size_bytes` of `source` to `path`; see transfer.upload, which raises the same."""
    target = checked(path).decode()
    beside = os.path.join(os.path.dirname(target), ".hostctl-" + os.urandom(8).hex())
    mode = _MODE if options.mode is None else options.mode
    async with Deadline(pulse, _PIECE_S, f"put {shown(path)}") as deadline:
        try:
            await _refuse_folder(session, target)
            file = await session.open(beside, write=True, mode=mode)
            await _pour(session, file, source, size_bytes, path, progress, deadline)
            await session.close_file(file)
            await session.rename(beside, target)
        except RequestFailed as err:
            await _clean_up(session, beside)
            if isinstance(err, TransferFailed):
                raise
            raise await _explained(session, target, err) from err
        except BaseException:
            await _clean_up(session, beside)
            raise
    return FileInfo(size_bytes, options.mode)


async def _pour(
    session: Session,
    file: int,
    source: BinaryIO,
    size_bytes: int,
    path: bytes,
    progress: Progress | None,
    deadline: Deadline,
) -> None:
    sent = 0
    while sent < size_bytes:
        chunk = await asyncio.to_thread(source.read, min(_CHUNK, size_bytes - sent))
        if not chunk:
            text = f"the source of {shown(path)} ended after {sent} of {size_bytes} bytes"
            raise ShortSource(errno.EIO, text, path=path)
        await session.write_file(file, chunk)
        sent += len(chunk)
        deadline.extend()
        if progress:
            progress(sent)


async def download(
    session: Session,
    pulse: Pulse,
    path: bytes,
    sink: BinaryIO,
    *,
    stat: bool,
    max_bytes: int | None,
    progress: Progress | None,
) -> FileInfo:
    """Write the file at `path` to `sink`; see transfer.download, which raises the same."""
    name = checked(path).decode()
    async with Deadline(pulse, _PIECE_S, f"get {shown(path)}") as deadline:
        try:
            node = await session.look(name)
            _refuse_other(node, path)
            file = await session.open(name, write=False)
        except RequestFailed as err:
            raise _failed(err, path) from err
        size = 0
        try:
            while data := await session.read_file(file, 2 * _CHUNK):
                size += len(data)
                if max_bytes is not None and size > max_bytes:
                    text = f"{shown(path)}: larger than {max_bytes} bytes"
                    raise TransferFailed(errno.EFBIG, text, path=path)
                sink.write(data)
                deadline.extend()
                if progress:
                    progress(size)
        except RequestFailed as err:
            raise _failed(err, path) from err
        finally:
            with contextlib.suppress(HostctlError):
                await asyncio.shield(session.close_file(file))
    # Seconds, as every channel tells them.
    return FileInfo(size, node.mode, float(int(node.mtime_s))) if stat else FileInfo(size)


def _refuse_other(node: Node, path: bytes) -> None:
    """Refuse what is no file: a FIFO would hang the guest's service."""
    number = errno.EISDIR if node.type == "Directory" else errno.EINVAL
    if node.type not in ("File", "DevBlock"):
        raise TransferFailed(number, f"{shown(path)}: is no file: {node.type}", path=path)


async def _refuse_folder(session: Session, target: str) -> None:
    try:
        node = await session.look(target)
    except RequestFailed:
        return  # nothing is there
    if node.type == "Directory":
        name = target.encode()
        raise TransferFailed(errno.EISDIR, f"{shown(name)}: is a directory", path=name)


async def _explained(session: Session, target: str, err: RequestFailed) -> TransferFailed:
    """Say why nothing can be written there, where VirtualBox's words are vague."""
    folder, name = os.path.dirname(target), target.encode()
    try:
        node = await session.look(folder)
    except RequestFailed:
        return TransferFailed(errno.ENOENT, f"{shown(name)}: no such folder", path=name)
    if node.type != "Directory":
        return TransferFailed(errno.ENOTDIR, f"{shown(name)}: not in a folder", path=name)
    return _failed(err, name)


def _failed(err: RequestFailed, path: bytes) -> TransferFailed:
    if isinstance(err, TransferFailed):
        return err
    return TransferFailed(err.errno or errno.EIO, f"{shown(path)}: {err.message}", path=path)


async def _clean_up(session: Session, path: str) -> None:
    with contextlib.suppress(HostctlError, TimeoutError):
        async with asyncio.timeout(_CLEAN_UP_S):
            await session.remove(path)
