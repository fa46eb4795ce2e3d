"""A channel over a foothold: whatever can keep a small file, show one, and run a script.

Lines without flow control lose bytes when too many are under way, and are shared with kernel
messages and getty. So nothing long is ever under way: a command travels as a script, a file in
pieces, output as a file; each is checked on arrival, and carried again if it was damaged. What this
costs (a handful of requests for a command) buys that a garbled command is never run.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Final, Protocol

from .entropy import FEED
from .errors import (
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    LocalProtocolError,
    OutputTooLarge,
    PortsBusy,
    Refused,
    RemoteProtocolError,
    ShortSource,
    SpawnFailed,
    TransferFailed,
)
from .interface import (
    MAX_OUTPUT,
    Buffer,
    Capability,
    Command,
    ExitStatus,
    FileInfo,
    Progress,
    PutOptions,
    Result,
)
from .scripts import GetScript, PutScript, Shown, command_script, errno_of, quoted, show_script
from .staged_process import Outcome, StagedProcess
from .transfer import shown

__all__ = ["REFUSED", "Foothold", "StagedChannel"]

logger = logging.getLogger(__name__)

REFUSED: Final = 99  # a script's status when it left a note why it would not
_BUSY_S: Final = 60.0  # waiting for the line
_TIDY_S: Final = 5.0  # spent at the end on removing our folder
_STEP_S: Final = 30.0  # for a step of a transfer; a script of a few forks
_LONG_S: Final = 600.0  # for one that reads the whole file for its digest: 15 GB at 25 MB/s
_MAX_NOTE: Final = 4096
_MAX_PATH: Final = 4095  # Linux's PATH_MAX without its NUL
_PLAIN: Final = PutOptions()
_RUNS: Final = 3  # carryings of a command that has not begun


class Foothold(Protocol):
    """What a staged channel stands on. One call at a time.

    Paths are absolute, in the guest. After a ChannelError or a cancellation, `open` leads on.
    """

    piece_bytes: int  # the most that `store` takes
    slice_bytes: int  # what is shown at once
    folder: bytes  # private to us in the guest, once open

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""

    @property
    def is_warm(self) -> bool:
        """See Channel."""

    async def open(self, timeout_s: float) -> None:
        """Reach the guest, from whatever state; cheap if all is in order."""

    async def ping(self) -> None:
        """Make a round trip."""

    async def store(self, path: bytes, data: bytes) -> None:
        """Write a small file, checked. Raises TransferFailed."""

    async def fetch(self, path: bytes) -> bytes:
        """Read a small file, checked. Raises TransferFailed."""

    async def call(
        self, path: bytes, *words: bytes, timeout_s: float | None = None, usage: bool = False
    ) -> ExitStatus:
        """Run a script of ours with `sh`; what it prints is lost."""

    async def close(self) -> None:
        """Let go of the line; what a fresh `open` needs is kept."""


class StagedChannel:
    """See interface.Channel. One request at a time: the others wait for the line."""

    def __init__(self, foothold: Foothold) -> None:
        self._foothold = foothold
        self._lock = asyncio.Lock()
        self._stale: list[bytes] = []  # paths that the next script removes
        self._show = b""  # the script that notes output, where it is stored

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        return self._foothold.capabilities

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return self._foothold.is_warm

    async def connect(self, timeout_s: float) -> None:
        """See Channel."""
        async with self._line(timeout_s):
            pass

    async def close(self) -> None:
        """See Channel."""
        async with self._lock:
            if self._foothold.is_warm:
                with contextlib.suppress(Exception):  # tidying is no reason to fail
                    async with asyncio.timeout(_TIDY_S):
                        await self._tidy()
            await self._foothold.close()

    async def _tidy(self) -> None:
        stale = [*self._stale, self._foothold.folder]
        await self._call(b"rm -rf %s\n" % b" ".join(map(quoted, stale)), b"tidy")
        self._stale.clear()

    async def ping(self) -> float:
        """See Channel."""
        async with self._line():
            begin = time.perf_counter()
            await self._foothold.ping()
            return time.perf_counter() - begin

    async def set_clock(self, unix_s: float) -> None:
        """See Channel."""
        await self._feat(f"date -u -s @{round(unix_s)}", Capability.CLOCK)

    async def feed_entropy(self, data: Buffer) -> None:
        """See Channel."""
        await self._feat(FEED, Capability.ENTROPY, data)

    async def _feat(self, line: str, need: Capability, data: Buffer = b"") -> None:
        async with self._line():
            self._need(need)
            outcome = await self._run(Command.of("sh", "-c", line), io.BytesIO(data), 4096)
        if not outcome.exit.ok:
            text = outcome.stderr.decode("utf-8", "backslashreplace").strip()
            raise SpawnFailed(errno.EPERM, f"{line}: {shown(text.encode())}")

    @asynccontextmanager
    async def _line(self, timeout_s: float = _BUSY_S) -> AsyncIterator[None]:
        """Hold the line, in order."""
        try:
            async with asyncio.timeout(_BUSY_S):
                await self._lock.acquire()
        except TimeoutError:
            raise PortsBusy(f"the one line stayed taken for {_BUSY_S:g} s") from None
        try:
            await self._foothold.open(timeout_s)
            yield
        finally:
            self._lock.release()

    def _need(self, capability: Capability | None) -> None:
        if capability and capability not in self.capabilities:
            raise Refused(f"this channel cannot: {capability.value}", capability.value)

    # --- commands -----------------------------------------------------------------------------

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        """See Channel."""
        begin = time.perf_counter()
        source = None if input is None else io.BytesIO(input)
        async with self._line():
            outcome = await self._run(command, source, max_output_bytes)
        return Result(
            command, outcome.exit, outcome.stdout, outcome.stderr, time.perf_counter() - begin
        )

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool = False) -> AsyncIterator[StagedProcess]:
        """See Channel. Output comes at the end; a command with stdin begins when that ends."""
        async with self._line():

            async def run(source: BinaryIO | None) -> Outcome:
                return await self._run(command, source, MAX_OUTPUT)

            process = StagedProcess(run, wants_input=stdin)
            try:
                yield process
            finally:
                await process.finish()

    async def _run(self, command: Command, source: BinaryIO | None, limit: int) -> Outcome:
        self._need(Capability.USER if command.user else None)
        self._need(Capability.USAGE if command.usage else None)
        token = _token()
        if source is not None:
            await self._upload(source, _size(source), self._own(b"i", token), PutOptions())
        status: ExitStatus | None = None
        for _ in range(_RUNS):
            try:
                status = await self._begin(command, token, status, fed=source is not None)
                shown = await self._shown(token) if limit else Shown()
            except TransferFailed as err:  # it never began, or we were told wrong
                logger.debug("%s: no output: %s", command, err)
                continue
            stdout, stderr = await self._output(shown, token, limit, command)
            self._stale += [self._own(name, token) for name in (b"o", b"e", b"i")]
            return Outcome(status, stdout, stderr)
        raise ChannelReset(f"{command}: was garbled on its way and did not begin")

    async def _begin(
        self, command: Command, token: bytes, known: ExitStatus | None, *, fed: bool
    ) -> ExitStatus:
        """Run the command, unless it has run: then its status is `known`."""
        script = self._tidy_line() + command_script(command, self._foothold.folder, token, fed=fed)
        try:
            return await self._call(script, token, timeout_s=command.timeout_s, usage=command.usage)
        except TransferFailed as err:
            if known is not None and err.message == "ran":
                return known
            raise SpawnFailed(err.errno or errno.EIO, err.message) from err

    async def _shown(self, token: bytes) -> Shown:
        show = self._foothold.folder + b"/show"
        if self._show != show:
            await self._foothold.store(show, show_script(self._foothold.folder))
            self._show = show
        note = self._own(b"n", token)
        await self._step(show, token)
        self._stale.append(note)
        return Shown.parse(await self._foothold.fetch(note))

    async def _output(
        self, shown: Shown, token: bytes, limit: int, command: Command
    ) -> list[bytes]:
        if max(shown.sizes) > limit:
            raise OutputTooLarge(
                f"{command}: printed more than {limit} bytes",
                hint="redirect it into a file there, and get that",
            )
        if shown.is_whole:
            return [shown.data[: shown.sizes[0]], shown.data[shown.sizes[0] :]]
        names = (self._own(b"o", token), self._own(b"e", token))
        return [await self._fetch(*each) for each in zip(names, shown.sizes, strict=True)]

    async def _fetch(self, path: bytes, size: int) -> bytes:
        sink = io.BytesIO()
        if size > self._foothold.slice_bytes:
            await self._download(path, sink, None, None)
        elif size:
            sink.write(await self._foothold.fetch(path))
        return sink.getvalue()

    # --- files --------------------------------------------------------------------------------

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = _PLAIN,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel. Digests are compared whether asked for or not, where the guest has them."""
        _check_verify(options.verify)
        async with self._line():
            self._need(Capability.SHA256 if options.verify else None)
            self._need(Capability.MTIME if options.mtime_s is not None else None)
            self._need(Capability.OWNER if options.owner else None)
            return await self._upload(source, size_bytes, _checked(path), options, progress)

    async def _upload(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions,
        progress: Progress | None = None,
    ) -> FileInfo:
        step, token = self._foothold.piece_bytes, _token()
        script = PutScript(self._foothold.folder, token, path, options, step)
        piece, steps = self._own(b"x", token), self._own(b"s", token)
        digest, sent = hashlib.sha256(), 0
        await self._ask(script.text(self._tidy_line()), steps, b"open", path=path)
        self._stale += [script.part, piece, steps]
        while sent < size_bytes:
            data = await asyncio.to_thread(source.read, min(step, size_bytes - sent))
            if not data:
                text = f"the source of {shown(path)} ended after {sent} of {size_bytes} bytes"
                raise ShortSource(errno.EIO, text, path=path)
            data += await _rest(source, min(step, size_bytes - sent) - len(data))
            digest.update(data)
            await self._foothold.store(piece, data)
            await self._ask(None, steps, b"keep", b"%d" % (sent // step))
            sent += len(data)
            if progress:
                progress(sent)
        sha256 = digest.hexdigest() if Capability.SHA256 in self.capabilities else ""
        await self._ask(None, steps, b"end", sha256.encode(), path=path)
        self._stale.remove(script.part)
        return FileInfo(size_bytes, options.mode, options.mtime_s, sha256 or None)

    async def get(
        self,
        path: bytes,
        sink: BinaryIO,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel. Digests are compared as in `put`.

        What is no regular file is copied in the guest first, up to 64 MiB.
        """
        _check_verify(verify)
        async with self._line():
            self._need(Capability.SHA256 if verify else None)
            info = await self._download(_checked(path), sink, max_bytes, progress)
        return info if stat else FileInfo(info.size_bytes, sha256=info.sha256)

    async def _download(
        self, path: bytes, sink: BinaryIO, max_bytes: int | None, progress: Progress | None
    ) -> FileInfo:
        step, token = self._foothold.slice_bytes, _token()
        script = GetScript(self._foothold.folder, token, path, step)
        steps = self._own(b"s", token)
        await self._ask(script.text(self._tidy_line()), steps, b"open", path=path)
        self._stale += [self._own(name, token) for name in (b"s", b"n", b"x", b"c")]
        info = script.facts(await self._foothold.fetch(self._own(b"n", token)))
        if max_bytes is not None and info.size_bytes > max_bytes:
            text = f"{shown(path)}: larger than {max_bytes} bytes"
            raise TransferFailed(errno.EFBIG, text, path=path)
        digest, size = hashlib.sha256(), 0
        for number in range(-(-info.size_bytes // step)):
            await self._ask(None, steps, b"cut", b"%d" % number, path=path)
            data = await self._foothold.fetch(self._own(b"x", token))
            digest.update(data)
            sink.write(data)
            size += len(data)
            if progress:
                progress(size)
        if size != info.size_bytes or info.sha256 not in (None, digest.hexdigest()):
            text = f"{shown(path)}: its digest differs: it changed meanwhile"
            raise TransferFailed(errno.EIO, text, path=path)
        return info

    # --- scripts ------------------------------------------------------------------------------

    def _own(self, name: bytes, token: bytes) -> bytes:
        """Return the path of a file of ours; the token keeps two runs' files apart."""
        return b"%s/%s.%s" % (self._foothold.folder, name, token)

    def _tidy_line(self) -> bytes:
        """Return a line that removes what earlier scripts left, for the next script to begin with.

        Should that be lost, so are some small files in the guest, until the channel is closed.
        """
        stale, self._stale = self._stale, []
        return b"rm -f %s\n" % b" ".join(map(quoted, stale)) if stale else b""

    async def _call(
        self,
        script: bytes,
        token: bytes,
        *,
        timeout_s: float | None = None,
        usage: bool = False,
    ) -> ExitStatus:
        path = self._own(b"r", token)
        await self._store_long(path, script)
        self._stale.append(path)
        status = await self._foothold.call(path, timeout_s=timeout_s, usage=usage)
        if status.code == REFUSED:
            await self._read_note(self._own(b"n", token), None)
        return status

    async def _ask(
        self, script: bytes | None, steps: bytes, *words: bytes, path: bytes | None = None
    ) -> None:
        """Take one step of a transfer. Raises TransferFailed with what the guest said."""
        if script is not None:
            await self._store_long(steps, script)
        status = await self._step(steps, *words)
        if status.code == REFUSED:
            await self._read_note(steps.replace(b"/s.", b"/n."), path)
        if not status.ok:
            raise TransferFailed(errno.EIO, f"a step failed: {words[0].decode()}: {status}")

    async def _step(self, steps: bytes, *words: bytes) -> ExitStatus:
        """Call; again when the line failed, for all steps but the last may be taken twice."""
        limit_s = _LONG_S if words[0] in (b"open", b"end") else _STEP_S
        for left in reversed(range(1 if words[0] == b"end" else _RUNS)):
            try:
                async with asyncio.timeout(limit_s):
                    return await self._foothold.call(steps, *words)
            except (ChannelError, RemoteProtocolError, TimeoutError) as err:
                logger.debug("step %s: %s", words, err)
                if not left:
                    if type(err) is TimeoutError:
                        text = f"a step in the guest did not end within {limit_s:g} s"
                        raise ChannelTimeout(text) from err
                    raise
                await self._foothold.open(limit_s)
        raise AssertionError("unreachable")

    async def _store_long(self, path: bytes, script: bytes) -> None:
        """Store a script of any length: in pieces, joined there, if it is longer than one."""
        step = self._foothold.piece_bytes
        if len(script) <= step:
            await self._foothold.store(path, script)
            return
        pieces = [script[at : at + step] for at in range(0, len(script), step)]
        names = [b"%s.%d" % (path, number) for number in range(len(pieces))]
        for name, piece in zip(names, pieces, strict=True):
            await self._foothold.store(name, piece)
        words = b" ".join(map(quoted, names))
        join = b"cat %s >%s && rm -f %s\n" % (words, quoted(path), words)
        await self._foothold.store(path + b".join", join)
        status = await self._foothold.call(path + b".join")
        if not status.ok:
            raise TransferFailed(errno.EIO, f"a script could not be joined: {status}")

    async def _read_note(self, note: bytes, path: bytes | None) -> None:
        """Raise what a script wrote down when it refused; return if it wrote nothing."""
        try:
            text = (await self._foothold.fetch(note))[:_MAX_NOTE]
        except TransferFailed:
            return  # the status was the command's own
        number, _, words = text.partition(b" ")
        said = shown(words.strip())
        code = int(number) if number.isdigit() and len(number) < 4 else 0
        raise TransferFailed(code or errno_of(words), said or "failed", path=path)


async def _rest(source: BinaryIO, size_bytes: int) -> bytes:
    """Read the rest of a piece: pieces lie at multiples of their size, so none may be short."""
    found = b""
    while len(found) < size_bytes:
        if not (data := await asyncio.to_thread(source.read, size_bytes - len(found))):
            break
        found += data
    return found


def _size(source: BinaryIO) -> int:
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size


def _token() -> bytes:
    return os.urandom(4).hex().encode()


def _check_verify(verify: str | None) -> None:
    if verify not in (None, "sha256"):
        raise LocalProtocolError(f"cannot verify by {verify}; only by sha256")


def _checked(path: bytes) -> bytes:
    if not path or b"\0" in path or len(path) > _MAX_PATH:
        raise LocalProtocolError(f"not a path: {shown(path[:80])}")
    return path if path.startswith((b"/", b"./")) else b"./" + path
