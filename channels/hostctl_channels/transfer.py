"""One file through one port.

A put and a get, from the request to the answer. All or nothing is the agent's work.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import Any, BinaryIO, Final, Protocol

from .deadline import Deadline
from .errors import LocalProtocolError, ShortSource, TransferFailed
from .interface import FileInfo, Progress, PutOptions
from .port import Port
from .wire import Data, Done, Event, Failure, messages

__all__ = ["Digest", "checked", "digest_of", "download", "shown", "upload"]

logger = logging.getLogger(__name__)

# Read and sent at once: far above the guest's 512 KiB ring, small beside the 64 MiB promised.
_CHUNK: Final = 1 << 20
# What is rather sent than spared when the guest has failed early: hanging up costs more.
_WORTH: Final = 4 << 20
_MAX_PATH: Final = 4095  # Linux's PATH_MAX without its NUL


class Digest(Protocol):
    """What is fed the bytes of a transfer."""

    def update(self, data: memoryview | bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def shown(path: bytes) -> str:
    """Return a path for a message: printable, on one line."""
    return (
        ascii(path.decode("utf-8", "surrogateescape"))[1:-1]
        if not path.isascii()
        else repr(path)[2:-1]
    )


async def upload(
    port: Port,
    deadline: Deadline,
    source: BinaryIO,
    size_bytes: int,
    path: bytes,
    options: PutOptions,
    progress: Progress | None,
) -> FileInfo:
    """Write `size_bytes` of `source` to `path`.

    Raises:
        TransferFailed: the guest could not; ShortSource: the source had fewer bytes. The target is
        as it was.
    """
    digest = digest_of(options.verify)
    await port.ask(
        messages.put(
            checked(path),
            size_bytes,
            mode=options.mode,
            mtime_s=options.mtime_s,
            owner=options.owner,
            verify=digest is not None,
        )
    )
    answer = asyncio.ensure_future(port.answer())
    try:
        await _body(port, deadline, source, size_bytes, answer, digest, progress, path)
        sha256 = digest.hexdigest() if digest else ""
        if port.lease.is_held:
            await port.tell(messages.verdict(sha256))
        deadline.extend()
        final = await answer
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
    if isinstance(final, Failure):
        raise TransferFailed(final.errno, final.text, path=path)
    return FileInfo(size_bytes, options.mode, options.mtime_s, sha256 or None)


async def _body(
    port: Port,
    deadline: Deadline,
    source: BinaryIO,
    size_bytes: int,
    answer: asyncio.Future[Event],
    digest: Digest | None,
    progress: Progress | None,
    path: bytes,
) -> None:
    sent = 0
    while sent < size_bytes:
        chunk = await asyncio.to_thread(source.read, min(_CHUNK, size_bytes - sent))
        if not chunk:
            port.release(clean=False)
            raise ShortSource(
                5,
                f"the source of {shown(path)} ended after {sent} of {size_bytes} bytes",
                path=path,
            )
        if digest:
            digest.update(chunk)
        if not await _sent(port, chunk, answer, spare=size_bytes - sent > _WORTH):
            port.release(clean=False)
            return
        sent += len(chunk)
        deadline.extend()
        if progress:
            progress(sent)


async def _sent(port: Port, chunk: bytes, answer: asyncio.Future[Event], *, spare: bool) -> bool:
    """Send a chunk; False if the answer came first and the rest had better not be sent."""
    sending = asyncio.ensure_future(port.lease.link.send(chunk))
    try:
        both: list[asyncio.Future[Any]] = [sending, answer]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and (spare or answer.exception()):
            return False
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return True


async def download(
    port: Port,
    deadline: Deadline,
    path: bytes,
    sink: BinaryIO,
    *,
    stat: bool,
    verify: str | None,
    max_bytes: int | None,
    progress: Progress | None,
) -> FileInfo:
    """Write the file at `path` to `sink`.

    Raises:
        TransferFailed: the guest could not read it, its digest differs, or it is larger than
        `max_bytes`.
            `sink` then holds a part.
    """
    digest = digest_of(verify)
    await port.ask(messages.get(checked(path), stat=stat, verify=digest is not None))
    size, last = 0, None
    async for event in port.events():
        last = event
        if isinstance(event, Data):
            size += len(event.view)
            if max_bytes is not None and size > max_bytes:
                text = f"{shown(path)}: larger than {max_bytes} bytes"
                raise TransferFailed(errno.EFBIG, text, path=path)
            _keep(event.view, sink, digest)
            deadline.extend()
            if progress:
                progress(size)
    if isinstance(last, Failure):
        raise TransferFailed(last.errno, last.text, path=path)
    assert isinstance(last, Done)  # the session lets nothing else end a get
    if digest and digest.hexdigest() != last.sha256:
        text = f"{shown(path)}: its digest differs: it changed meanwhile"
        raise TransferFailed(errno.EIO, text, path=path)
    return FileInfo(size, last.mode, last.mtime_s, last.sha256)


def _keep(view: memoryview, sink: BinaryIO, digest: Digest | None) -> None:
    sink.write(view)
    if digest:
        digest.update(view)


def digest_of(verify: str | None) -> Digest | None:
    """Return a digest to be fed, if one is asked for. Raises LocalProtocolError for other kinds."""
    if verify is None:
        return None
    if verify != "sha256":
        raise LocalProtocolError(f"cannot verify by {verify}; only by sha256")
    import hashlib  # 6 ms of CPU that a command has no use for

    return hashlib.sha256()


def checked(path: bytes) -> bytes:
    """Return a path that no tool takes for an option. Raises LocalProtocolError if it is none."""
    if not path or b"\0" in path or len(path) > _MAX_PATH:
        raise LocalProtocolError(f"not a path: {shown(path[:80])}")
    return path if path.startswith((b"/", b"./")) else b"./" + path
