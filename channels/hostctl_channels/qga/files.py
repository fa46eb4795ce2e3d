"""One file through the guest agent: in chunks, whole or not at all.

A put is written beside its target, under a name of ours and for our eyes only, and renamed at the
end by the guest's own tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO, Final

from ..deadline import Deadline, Timeline
from ..errors import (
    GuestError,
    HostctlError,
    Refused,
    RemoteProtocolError,
    RequestFailed,
    ShortSource,
    SpawnFailed,
    TransferFailed,
)
from ..interface import FileInfo, Progress, Pulse, PutOptions
from ..transfer import Digest, checked, digest_of, shown
from .agent import Status, errno_of
from .hands import Hands
from .process import run
from .script import Oops, quote, script_call
from .wire import printable

__all__ = ["download", "upload"]

logger = logging.getLogger(__name__)

# The price of a request is small beside that of its base64 (64 KiB: 1.9 MB/s, 4 MiB: 2.5 MB/s);
# and libvirt carries strings of 4 MiB.
CHUNK: Final = 2 << 20
# What goes in one request with all that is to be done: two programs less, half of the time.
_SMALL: Final = 256 * 1024
# Of a request, for words and paths: two of PATH_MAX, of which JSON escapes a byte or two.
_ENVELOPE: Final = 16 * 1024
_CLEAN_UP_S: Final = 5.0
_SCRIPT_S: Final = 60.0  # for what takes milliseconds, on a guest under load
# Bytes per second; busybox' sha256sum does 25 MB/s under emulation, several times less under load.
_DIGEST_RATE: Final = 2e6
_LOOK_S: Final = 3600.0  # to digest a file whose size nobody knows yet

_READY_TO_PUT: Final = b"""\
LC_ALL=C; umask 077
[ ! -d "$1" ] || _o 21 'is a directory'
d=${1%/*}
[ -d "$d/" ] || { [ ! -e "$d" ] || _o 20 'not in a folder'; _o 2 'no such folder'; }
true >"$2" || exit
"""
# JSON carries no name that is not UTF-8: one of ours then leads there.
_LINK: Final = b"""\
case $2 in /*) t=$2 ;; *) t=$PWD/$2 ;; esac
ln -s "$t" "$3" || exit
"""
_READY_TO_GET: Final = b"""\
LC_ALL=C
[ ! -d "$2" ] || _o 21 'is a directory'
[ -e "$2" ] || _o 2 'no such file'
[ -f "$2" ] || [ -b "$2" ] || _o 22 'neither a file nor a disk; the guest agent could wait for ever'
[ -r "$2" ] || _o 13 'may not be read'
"""
_STAT: Final = b"! command -v stat >/dev/null || stat -L -c 'mode=%a mtime=%Y' \"$2\" || exit\n"
_SHA256: Final = b"""\
command -v sha256sum >/dev/null || _o 95 sha256sum
s=$(sha256sum <"$2") || exit
"""
_REMOVE: Final = b'rm -f "$2" ${3:+"$3"}'


class _Place:
    """A file of the guest's, and the name by which the agent can open it."""

    def __init__(self, agent: Hands, pulse: Pulse, target: bytes, what: str) -> None:
        self.agent = agent
        self.target = target
        self._pulse = pulse
        self.timeline = Timeline(pulse, f"{what} {shown(target)}")
        self._what = f"{what} {shown(target)}"
        self._mark = b".hostctl-" + os.urandom(8).hex().encode()
        self._oops = Oops()
        self.file = target

    def beside(self) -> None:
        """Work on a new file in the target's folder."""
        self.file = os.path.join(os.path.dirname(self.target), self._mark)

    @property
    def link(self) -> bytes:
        """The name that leads to `file`, b"" if it needs none."""
        return b"" if self.agent.carries(self.file) else b"/tmp/" + self._mark

    @property
    def opened(self) -> bytes:
        """What the agent is told to open."""
        return self.link or self.file

    async def run(
        self, text: bytes, data: bytes | None = None, *, limit_s: float = _SCRIPT_S
    ) -> Status:
        """Run shell text with $1 the target, $2 the file, $3 the link; `data` is what it reads.

        Raises:
            TransferFailed: it failed, with its own words.
        """
        words = (self.target, self.file, self.link)
        call = script_call(self._oops.function + text, data, words, self.agent.carries)
        async with Deadline(self._pulse, limit_s, self._what):
            status = await run(self.agent, call, self.timeline)
        if error := self._oops.error(status.code, status.stderr, shown(self.target)):
            if isinstance(error, SpawnFailed):
                raise TransferFailed(error.errno or errno.EIO, error.message, path=self.target)
            raise error
        if status.code != 0:
            said = printable(status.stderr.decode("utf-8", "backslashreplace")) or "failed"
            raise TransferFailed(errno_of(said), f"{shown(self.target)}: {said}", path=self.target)
        return status

    async def clean_up(self, text: bytes) -> None:
        """Run shell text if it can still be; for what an error leaves behind."""
        if self.timeline.is_cut:
            return
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await self.run(text)
        except (HostctlError, TimeoutError) as err:
            logger.info("%s: %s may be left in the guest: %s", self._what, self._mark.decode(), err)


async def upload(
    agent: Hands,
    pulse: Pulse,
    source: BinaryIO,
    size_bytes: int,
    path: bytes,
    options: PutOptions,
    progress: Progress | None,
) -> FileInfo:
    """Write `size_bytes` of `source` to `path`; see transfer.upload, which raises the same."""
    place = _Place(agent, pulse, checked(path), "put")
    place.beside()
    tap = _Source(source, size_bytes, path, digest_of(options.verify), progress)
    try:
        if size_bytes <= min(_SMALL, _chunk(agent.exchange.max_request_bytes)):
            await _put_at_once(place, tap, options)
        else:
            await _put_in_chunks(place, tap, options)
    except BaseException:
        await place.clean_up(_REMOVE)
        raise
    return FileInfo(size_bytes, options.mode, options.mtime_s, tap.sha256)


async def _put_at_once(place: _Place, tap: _Source, options: PutOptions) -> None:
    """Send a small file as standard input of the one program that does all the rest."""
    data = b"".join([piece async for piece in tap.pieces(_SMALL)])
    text = _READY_TO_PUT.replace(b'true >"$2"', b'cat >"$2"')
    text += b'[ "$(wc -c <"$2")" -eq %d ] || _o 5 \'not all arrived\'\n' % len(data)
    await place.run(text + _finish(options, tap.sha256), data)
    tap.done()


async def _put_in_chunks(place: _Place, tap: _Source, options: PutOptions) -> None:
    await place.run(_READY_TO_PUT + (_LINK if place.link else b""))
    handle = await _opened(place, "w")
    try:
        async for piece in tap.pieces(_chunk(place.agent.exchange.max_request_bytes)):
            await _write(place, handle, piece)
            tap.done()
    except BaseException:
        await _abandon(place, handle)
        raise
    await _shut(place, handle)
    limit_s = _SCRIPT_S + (tap.size_bytes / _DIGEST_RATE if tap.sha256 else 0)
    await place.run(_finish(options, tap.sha256), limit_s=limit_s)


class _Source:
    """The bytes of a put, counted and digested as they are taken."""

    def __init__(
        self,
        file: BinaryIO,
        size_bytes: int,
        path: bytes,
        digest: Digest | None,
        progress: Progress | None,
    ) -> None:
        self.size_bytes = size_bytes
        self._file = file
        self._path = path
        self._digest = digest
        self._progress = progress
        self._taken = 0

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        """Yield all. Raises ShortSource."""
        while self._taken < self.size_bytes:
            size = min(limit, self.size_bytes - self._taken)
            piece = await asyncio.to_thread(self._file.read, size)
            if not piece:
                text = f"ended after {self._taken} of {self.size_bytes} bytes"
                path = self._path
                raise ShortSource(errno.EIO, f"the source of {shown(path)} {text}", path=path)
            if self._digest:
                self._digest.update(piece)
            self._taken += len(piece)
            yield piece

    def done(self) -> None:
        """Tell that what was taken has arrived."""
        if self._progress:
            self._progress(self._taken)

    @property
    def sha256(self) -> str | None:
        """The digest of what was taken, if one is wanted."""
        return self._digest.hexdigest() if self._digest else None


def _finish(options: PutOptions, sha256: str | None) -> bytes:
    """Return shell text that makes the file what it shall be, and its target."""
    text = b"LC_ALL=C\n"
    if options.owner:
        text += b"command -v chown >/dev/null || _o 95 chown\n"
        text += b'chown %s "$2" || exit\n' % quote(options.owner.encode())
    text += b'chmod %o "$2" || exit\n' % (0o644 if options.mode is None else options.mode)
    if options.mtime_s is not None:
        seconds = f"{options.mtime_s:.3f}".rstrip("0").rstrip(".").encode()
        text += b"command -v touch >/dev/null || _o 95 touch\n"
        text += b'touch -d @%s "$2" || exit\n' % seconds
    if sha256:
        text += _SHA256 + b"[ \"${s%%%% *}\" = %s ] || _o 5 'not what was sent'\n" % sha256.encode()
    return text + b'mv -f "$2" "$1" && rm -f ${3:+"$3"}'


async def download(
    agent: Hands,
    pulse: Pulse,
    path: bytes,
    sink: BinaryIO,
    *,
    may_exec: bool,
    stat: bool,
    verify: str | None,
    max_bytes: int | None,
    progress: Progress | None,
) -> FileInfo:
    """Write the file at `path` to `sink`; see transfer.download, which raises the same.

    Without `may_exec` nothing is looked at before, and a FIFO would block the agent.
    """
    place = _Place(agent, pulse, checked(path), "get")
    digest = digest_of(verify)
    if place.link and not may_exec:
        raise Refused(f"{shown(path)}: the guest agent opens UTF-8 names only", "guest-exec")
    facts = await _look(place, stat=stat, verify=verify) if may_exec else {}
    try:
        handle = await _opened(place, "r")
    finally:
        if place.link:
            await place.clean_up(b'rm -f "$3"')
    size = 0
    try:
        async for data in _pieces(place, handle):
            size += len(data)
            if max_bytes is not None and size > max_bytes:
                text = f"{shown(path)}: larger than {max_bytes} bytes"
                raise TransferFailed(errno.EFBIG, text, path=path)
            sink.write(data)
            if digest:
                digest.update(data)
            if progress:
                progress(size)
    finally:
        await _abandon(place, handle)
    if digest and digest.hexdigest() != facts.get("sha256"):
        text = f"{shown(path)}: its digest differs: it changed meanwhile"
        raise TransferFailed(errno.EIO, text, path=path)
    return _info(size, facts)


async def _pieces(place: _Place, handle: int) -> AsyncIterator[bytes]:
    """Yield what a file holds."""
    limit, is_end = _chunk(place.agent.exchange.max_reply_bytes), False
    while not is_end:
        place.timeline.check()
        data, is_end = await _read(place, handle, limit)
        if not data and not is_end:
            raise RemoteProtocolError("the guest agent reads nothing, and says there is more")
        yield data


def _info(size_bytes: int, facts: Mapping[str, str]) -> FileInfo:
    mode, mtime = facts.get("mode"), facts.get("mtime")
    return FileInfo(
        size_bytes,
        None if mode is None else int(mode, 8),
        None if mtime is None else float(mtime),
        facts.get("sha256"),
    )


_FACTS: Final = re.compile(
    rb"(?:mode=(?P<mode>[0-7]{1,5}) mtime=(?P<mtime>-?\d{1,12})\n)?(?:(?P<sha256>[0-9a-f]{64})\n)?"
)


async def _look(place: _Place, *, stat: bool, verify: str | None) -> dict[str, str]:
    """Return what is asked for of a file, and refuse what the agent must not open."""
    text = _READY_TO_GET + (_STAT if stat else b"")
    if verify:
        text += _SHA256 + b'echo "${s%% *}"\n'
    limit_s = _LOOK_S if verify else _SCRIPT_S
    status = await place.run(text + (_LINK if place.link else b""), limit_s=limit_s)
    found = _FACTS.fullmatch(status.stdout)
    if not found:
        raise RemoteProtocolError(f"no facts of a file: {status.stdout[:80]!r}")
    return {name: value.decode() for name, value in found.groupdict().items() if value}


async def _opened(place: _Place, mode: str) -> int:
    try:
        return await place.agent.open(place.opened, mode)
    except RequestFailed as err:
        raise _failed(place, err) from err


async def _read(place: _Place, handle: int, limit: int) -> tuple[bytes, bool]:
    try:
        return await place.agent.read(handle, limit, place.target)
    except RequestFailed as err:
        raise _failed(place, err) from err


async def _write(place: _Place, handle: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        place.timeline.check()
        try:
            view = view[await place.agent.write(handle, view, place.target) :]
        except RequestFailed as err:
            raise _failed(place, err) from err


async def _shut(place: _Place, handle: int) -> None:
    try:
        await place.agent.shut(handle, place.target)
    except RequestFailed as err:
        raise _failed(place, err) from err


async def _abandon(place: _Place, handle: int) -> None:
    """Close a handle whose content does not matter any more."""
    if place.timeline.is_cut:
        return
    with contextlib.suppress(GuestError, HostctlError, TimeoutError):
        async with asyncio.timeout(_CLEAN_UP_S):
            await place.agent.shut(handle, place.target)


def _failed(place: _Place, err: RequestFailed) -> TransferFailed:
    text = f"{shown(place.target)}: {err.message}"
    return TransferFailed(err.errno or errno.EIO, text, path=place.target)


def _chunk(limit_bytes: int) -> int:
    """Return how many bytes one request carries in base64, with its own words around."""
    return min(CHUNK, (limit_bytes - _ENVELOPE) // 4 * 3)
