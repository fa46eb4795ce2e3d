"""One file through one port.

A put and a get, from the request to the answer. All or nothing is the agent's work.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, BinaryIO, Final, Protocol

from .deadline import Deadline
from .errors import LocalProtocolError, ShortSource, TransferFailed
from .interface import FileInfo, Progress, PutOptions
from .port import Port
from .wire import Data, Done, Failure, messages

__all__ = ["download", "shown", "upload"]

logger = logging.getLogger(__name__)

_CHUNK: Final = (
    1 << 20
)  # read and sent at once: far above the guest's 512 KiB ring, small beside the 64 MiB promised
_WORTH: Final = (
    4 << 20
)  # what is rather sent than spared when the guest has failed early: hanging up costs more
_MAX_PATH: Final = 4095  # Linux's PATH_MAX without its NUL


class _Digest(Protocol):
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
    digest = _digest(options.verify)
    await port.ask(
        messages.put(
            _checked(path),
            size_bytes,
            mode=options.mode,
            mtime_s=options.mtime_s,
            owner=options.owner,
            verify=digest is not None,
        )
    )
    answer = asyncio.ensure_future(_answer(port))
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
    answer: asyncio.Future[Done | Failure],
    digest: _Digest | None,
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
        sending = asyncio.ensure_future(port.lease.link.send(chunk))
        both: list[asyncio.Future[Any]] = [sending, answer]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and size_bytes - sent > _WORTH:
            sending.cancel()
            port.release(clean=False)
            return
        await sending
        sent += len(chunk)
        deadline.extend()
        if progress:
            progress(sent)


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
    digest = _digest(verify)
    await port.ask(messages.get(_checked(path), stat=stat, verify=digest is not None))
    size = 0
    async for event in port.events():
        match event:
            case Data(view):
                size += len(view)
                if max_bytes is not None and size > max_bytes:
                    raise TransferFailed(
                        27, f"{shown(path)}: larger than {max_bytes} bytes", path=path
                    )
                sink.write(view)
                if digest:
                    digest.update(view)
                deadline.extend()
                if progress:
                    progress(size)
            case Failure(errno, text):
                raise TransferFailed(errno, text, path=path)
            case Done(mode, mtime_s, sha256):
                if digest and digest.hexdigest() != sha256:
                    raise TransferFailed(
                        5, f"{shown(path)}: its digest differs: it changed meanwhile", path=path
                    )
                return FileInfo(size, mode, mtime_s, sha256)
            case _:
                pass
    raise AssertionError("the session lets nothing else end a request")


async def _answer(port: Port) -> Done | Failure:
    async for event in port.events():
        if isinstance(event, Done | Failure):
            return event
    raise AssertionError("the session lets nothing else end a request")


def _digest(verify: str | None) -> _Digest | None:
    if verify is None:
        return None
    if verify != "sha256":
        raise LocalProtocolError(f"cannot verify by {verify}; only by sha256")
    import hashlib  # 6 ms of CPU that a command has no use for

    return hashlib.sha256()


def _checked(path: bytes) -> bytes:
    if not path or b"\0" in path or len(path) > _MAX_PATH:
        raise LocalProtocolError(f"not a path: {shown(path[:80])}")
    return path if path.startswith((b"/", b"./")) else b"./" + path
