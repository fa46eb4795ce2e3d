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
from typing import BinaryIO, Final

from ..deadline import Timeline
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
from ..transfer import checked, digest_of, shown
from .agent import Agent, Status, errno_of
from .process import run
from .script import Oops, quote, script_call
from .wire import is_carried, printable

__all__ = ["download", "upload"]

logger = logging.getLogger(__name__)

# The price of a request is small beside that of its base64 (64 KiB: 1.9 MB/s, 4 MiB: 2.5 MB/s);
# and libvirt carries strings of 4 MiB.
CHUNK: Final = 2 << 20
_CLEAN_UP_S: Final = 5.0

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

    def __init__(self, agent: Agent, pulse: Pulse, target: bytes, what: str) -> None:
        self.agent = agent
        self.target = target
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
        return b"" if is_carried(self.file) else b"/tmp/" + self._mark

    @property
    def opened(self) -> bytes:
        """What the agent is told to open."""
        return self.link or self.file

    async def run(self, text: bytes) -> Status:
        """Run shell text with $1 the target, $2 the file, $3 the link.

        Raises:
            TransferFailed: it failed, with its own words.
        """
        call = script_call(self._oops.function + text, None, (self.target, self.file, self.link))
        status = await run(self.agent, call, self.timeline)
        if error := self._oops.error(status.code, status.stderr, shown(self.target)):
            if isinstance(error, SpawnFailed):
                raise TransferFailed(error.errno or errno.EIO, error.message, path=self.target)
            raise error
        if status.code != 0:
            words = printable(status.stderr.decode("utf-8", "backslashreplace")) or "failed"
            raise TransferFailed(
                errno_of(words), f"{shown(self.target)}: {words}", path=self.target
            )
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
    agent: Agent,
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
    digest = digest_of(options.verify)
    try:
        await place.run(_READY_TO_PUT + (_LINK if place.link else b""))
        handle = await _opened(place, "w")
        try:
            sent = 0
            while sent < size_bytes:
                chunk = await asyncio.to_thread(
                    source.read, min(_chunk(agent.exchange.max_request_bytes), size_bytes - sent)
                )
                if not chunk:
                    text = f"the source of {shown(path)} ended after {sent} of {size_bytes} bytes"
                    raise ShortSource(errno.EIO, text, path=path)
                if digest:
                    digest.update(chunk)
                await _write(place, handle, chunk)
                sent += len(chunk)
                if progress:
                    progress(sent)
        except BaseException:
            await _abandon(place, handle)
            raise
        await _shut(place, handle)
        sha256 = digest.hexdigest() if digest else None
        await place.run(_finish(options, sha256))
    except BaseException:
        await place.clean_up(_REMOVE)
        raise
    return FileInfo(size_bytes, options.mode, options.mtime_s, sha256)


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
    agent: Agent,
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
    try:
        size, is_end = 0, False
        while not is_end:
            place.timeline.check()
            limit = _chunk(agent.exchange.max_reply_bytes)
            data, is_end = await _read(place, handle, limit)
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
    mode, mtime = facts.get("mode"), facts.get("mtime")
    return FileInfo(
        size,
        int(mode, 8) if mode and stat else None,
        float(mtime) if mtime and stat else None,
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
    status = await place.run(text + (_LINK if place.link else b""))
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
    return min(CHUNK, (limit_bytes - 8192) // 4 * 3)
