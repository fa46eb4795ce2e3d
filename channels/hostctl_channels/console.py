"""A channel over a login on a serial line: the last resort, slow, for any guest with a getty.

Nothing is installed in the guest: `sh`, `printf`, and `base64` or `od` do. Commands and files go as
in staged.py, in lines no tty cuts, each few answered for; what a kernel prints in between is told
apart by random marks and digests. Cancelling is Ctrl-C.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from .deadline import Deadline
from .errors import (
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    GuestError,
    Refused,
    RemoteProtocolError,
    TransferFailed,
)
from .interface import Capability, ExitStatus, Pulse
from .links.interface import Endpoint
from .links.serial_line import BAUD, SerialEndpoint, gathered
from .login import Login, reach_shell
from .ports import SERIAL, Lease, PortPool
from .scripts import quoted
from .serial_agent import UncutPulse, lock_folder
from .staged import StagedChannel
from .talk import Talk, split_mark

__all__ = ["ConsoleChannel", "LoginFoothold", "login_console", "open_console"]

logger = logging.getLogger(__name__)

_PIECE: Final = 12 * 1024  # 16 KiB of base64: half a second of a 16550 under emulation
_CHUNK: Final = 840  # of text in a line, which has a path or two besides
_UNANSWERED: Final = 3  # such lines under way: below the 4095 bytes that a tty keeps
_SHORT_S: Final = 20.0  # for a line that takes a few forks
_ASK_S: Final = 2.0  # silence after which the status is asked for again, then twice that, ...
_END_S: Final = 2.0  # for a command to heed Ctrl-C, then Ctrl-backslash
_CARRY: Final = 4
_MAX_TOLD: Final = 128 * 1024  # of lines between two marks; a slice in hex is a third of it
_AGAIN_S: Final = 30.0  # to log in once more, in the middle of something
_FEATURES: Final = {
    b"su": Capability.USER,
    b"stat": Capability.METADATA,
    b"touch": Capability.MTIME,
    b"chown": Capability.OWNER,
    b"sha256sum": Capability.SHA256,
    b"date": Capability.CLOCK,
}
_TOOLS: Final = (*_FEATURES, b"base64", b"od", b"md5sum", b"dd")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{1,76}={0,2}")
_HEX: Final = re.compile(rb"(?: *[0-9a-f]{2})+")


def open_console(
    target: str | Path,
    login: Login | None,
    *,
    baud: int = BAUD,
    lock_dir: Path | None = None,
    pulse: Pulse | None = None,
) -> ConsoleChannel:
    """Return a channel that logs in at a serial line, when it is first used.

    Without `login` only a line with an open shell is of use. `target` and `lock_dir` are as in
    `open_serial`.
    """
    locks = lock_dir or lock_folder(os.fspath(target))
    return login_console(SerialEndpoint(target, baud), login, locks, pulse or UncutPulse())


def login_console(
    endpoint: Endpoint, login: Login | None, lock_dir: Path, pulse: Pulse
) -> ConsoleChannel:
    """Return a channel that logs in at a machine's serial line, when it is first used."""
    return ConsoleChannel(
        LoginFoothold(PortPool({SERIAL: gathered(endpoint)}, lock_dir), login, pulse)
    )


class ConsoleChannel(StagedChannel):
    """See interface.Channel. The last resort, whose line can be handed to somebody better."""

    def __init__(self, foothold: LoginFoothold) -> None:
        super().__init__(foothold)
        self._login = foothold

    async def hand_over(self, line: bytes, sign: bytes) -> None:
        """Replace our shell by a command that has the line from now on, and hang up.

        `line` is shell text, in which `$(tty)` is the line's name in the guest; `sign` is what the
        command says first.

        Raises:
            ChannelTimeout: it did not say so.
        """
        await self.connect(_SHORT_S)
        await self._tidy()
        await self._login.hand_over(line, sign)


class LoginFoothold:
    """See staged.Foothold. The line is ours, and logged in, from `open` to `close`."""

    piece_bytes = _PIECE
    slice_bytes = _PIECE

    def __init__(self, pool: PortPool, login: Login | None, pulse: Pulse) -> None:
        self.folder = b""
        self._pool = pool
        self._login = login
        self._pulse = pulse
        self._epoch = 0
        self._lease: Lease | None = None
        self._talk: Talk | None = None
        self._is_upset = False
        self._tools: frozenset[bytes] = frozenset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        found = {_FEATURES[tool] for tool in self._tools if tool in _FEATURES}
        return frozenset(found | {Capability.STDIN, Capability.ENTROPY})

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        is_ours = self._talk is not None and not self._is_upset
        return is_ours and self._epoch == self._pulse.epoch()

    async def open(self, timeout_s: float) -> None:
        """See Foothold."""
        if self.is_warm:
            return
        epoch = self._pulse.epoch()
        if self._talk is None or not await self._regain():
            await self._log_in(timeout_s)
        try:
            await self._look_around()
        except BaseException:
            self._hang_up(clean=False)
            raise
        self._epoch = epoch

    async def _regain(self) -> bool:
        """End what runs, and see whether our shell is still there."""
        assert self._talk is not None
        try:
            for key in (b"\x03", b"\x03", b"\x1c"):
                await self._talk.send(key + b"\n")
                if await self._talk.answers(b"echo %s\n", _END_S):
                    await self._talk.drop(0.2)
                    self._is_upset = False
                    return True
        except ChannelError:
            pass
        self._hang_up(clean=False)
        return False

    async def _log_in(self, timeout_s: float) -> None:
        self._lease = await self._pool.lease((SERIAL,), timeout_s)
        self._talk = Talk(self._lease.link)
        try:
            await reach_shell(self._talk, self._login, timeout_s)
        except BaseException:
            self._hang_up(clean=True)
            raise
        self._is_upset = False

    async def _look_around(self) -> None:
        names = b" ".join(_TOOLS)
        line = b"for t in %s;do command -v $t >/dev/null&&printf '%%s ' $t;done;id -u"
        _, told = await self._say(line % names)
        words = b" ".join(told).split()
        self._tools = frozenset(word for word in words if word in _TOOLS)
        if words[-1:] != [b"0"]:
            self._tools -= {b"su"}  # it would ask for a password, at our line
        if not self._tools & {b"base64", b"od"}:
            raise Refused("the guest has neither base64 nor od", "files")
        name = os.urandom(8).hex().encode()
        for place in (b"/tmp", b"/run", b"/dev/shm", b"$HOME"):
            folder = b"%s/hostctl-%s" % (place, name)
            status, told = await self._say(b"mkdir -m 700 %s&&echo :%s" % (folder, folder))
            if status == b"0" and told and re.fullmatch(rb":/[A-Za-z0-9_./-]{1,200}", told[-1]):
                self.folder = told[-1][1:]
                return
        raise TransferFailed(errno.EACCES, "the guest has no folder for us")

    async def ping(self) -> None:
        """See Foothold."""
        await self._say(b"true")

    async def hand_over(self, line: bytes, sign: bytes) -> None:
        """See ConsoleChannel. To hang up before the line is read would cut it off."""
        assert self._talk is not None  # it is open
        try:
            async with Deadline(self._pulse, _SHORT_S, "the command that has the line now"):
                await self._talk.send(b"exec %s\n" % line)
                await self._talk.hear(sign)
        finally:
            self._hang_up(clean=True)

    async def store(self, path: bytes, data: bytes) -> None:
        """See Foothold."""
        for _ in range(_CARRY):
            try:
                if await self._stored(path, data):
                    return
            except ChannelTimeout:
                await self.open(_AGAIN_S)
        raise TransferFailed(errno.EIO, "a piece was damaged each time it was carried")

    async def _stored(self, path: bytes, data: bytes) -> bool:
        text = path + b".t" if b"base64" in self._tools else path
        lines = [b"printf ''>%s" % text, *self._lines(data, text)]
        for at in range(0, len(lines), _UNANSWERED):
            status, told = await self._say(*lines[at : at + _UNANSWERED])
            if status != b"0":
                raise TransferFailed(errno.EIO, f"the guest cannot write: {told[-1:]!r}")
        if text != path:
            await self._say(b"base64 -d <%s >%s;rm -f %s" % (text, path, text))
        _, told = await self._say(self._digest_line(path))
        return told[-1:] == [self._digest(data)]

    def _lines(self, data: bytes, path: bytes) -> list[bytes]:
        if b"base64" in self._tools:
            text = base64.b64encode(data)
            step = _CHUNK
        else:
            text = b"".join(b"\\%03o" % byte for byte in data)
            step = _CHUNK // 4 * 4
        cuts = (text[at : at + step] for at in range(0, len(text), step))
        return [b"printf '%s'>>%s" % (cut, path) for cut in cuts]

    def _digest_line(self, path: bytes) -> bytes:
        tool = next((tool for tool in (b"sha256sum", b"md5sum") if tool in self._tools), None)
        if tool is None:
            return b"echo :$(wc -c <%s)" % path
        return b"s=$(%s <%s);echo :${s%%%% *}" % (tool, path)

    def _digest(self, data: bytes) -> bytes:
        if b"sha256sum" in self._tools:
            return b":" + hashlib.sha256(data).hexdigest().encode()
        if b"md5sum" in self._tools:
            return b":" + hashlib.md5(data, usedforsecurity=False).hexdigest().encode()
        return b":%d" % len(data)

    async def fetch(self, path: bytes) -> bytes:
        """See Foothold."""
        for _ in range(_CARRY):
            try:
                data = await self._fetched(path)
            except (ChannelTimeout, RemoteProtocolError):
                await self.open(_AGAIN_S)
                continue
            if data is not None:
                return data
        raise TransferFailed(errno.EIO, "a slice was damaged each time it was carried")

    async def _fetched(self, path: bytes) -> bytes | None:
        is_base64 = b"base64" in self._tools
        show = b"base64 <%s" if is_base64 else b"od -An -v -tx1 <%s"
        line = b"if [ -r %s ];then " + show + b";%s;else echo :none;fi"
        _, told = await self._say(line % (path, path, self._digest_line(path)))
        if told[-1:] == [b":none"]:
            raise TransferFailed(errno.ENOENT, "no such file", path=path)
        pattern = _BASE64 if is_base64 else _HEX
        text = b"".join(each for each in told[:-1] if pattern.fullmatch(each))
        try:
            data = base64.b64decode(text) if is_base64 else bytes.fromhex(text.decode())
        except ValueError:
            return None
        return data if told[-1:] == [self._digest(data)] else None

    async def call(
        self, path: bytes, *words: bytes, timeout_s: float | None = None, usage: bool = False
    ) -> ExitStatus:
        """See Foothold. A timeout is Ctrl-C, then Ctrl-backslash."""
        log = self.folder + b"/log"
        rest = b" ".join(map(quoted, words))
        # The shell says in $log that a command was killed: only so is a signal told from a status.
        line = b"{ sh %s %s </dev/null >/dev/null; } 2>%s" % (path, rest, log)
        after = b"[ $r -le 128 ]||[ ! -s %s ]||r=s$r" % log
        status, is_late = await self._run(line, after, timeout_s)
        number = int(status.lstrip(b"s"))
        if is_late:
            return ExitStatus(None, number - 128 if number > 128 else 2, timed_out=True)
        if status.startswith(b"s") and 128 < number <= 192:
            return ExitStatus(None, number - 128)
        return ExitStatus(number)

    async def close(self) -> None:
        """See Foothold. Logs out."""
        if self._talk is not None and not self._is_upset:
            with contextlib.suppress(ChannelError, TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._talk.send(b"exit\n")
        self._hang_up(clean=True)

    def _hang_up(self, *, clean: bool) -> None:
        if self._lease is not None:
            self._lease.release(clean=clean)
        self._lease = self._talk = None
        self.folder = b""

    # --- lines --------------------------------------------------------------------------------

    async def _say(self, *lines: bytes) -> tuple[bytes, list[bytes]]:
        """Have lines run; return the status of the last and what was said, within seconds."""
        async with self._conversing() as talk, Deadline(self._pulse, _SHORT_S, "a line"):
            for line in lines[:-1]:
                await talk.send(line + b"\n")
            return await self._marked(talk, lines[-1], b":")

    async def _run(self, line: bytes, after: bytes, timeout_s: float | None) -> tuple[bytes, bool]:
        """Have a line run that may take long; tell whether it had to be interrupted."""
        async with self._conversing() as talk, Deadline(self._pulse, None, "a command"):
            ending = asyncio.ensure_future(self._marked(talk, line, after))
            try:
                for key, wait_s in ((b"", timeout_s), (b"\x03", _END_S), (b"\x1c", _END_S)):
                    if key:
                        await talk.send(key)
                    if (await asyncio.wait([ending], timeout=wait_s))[0]:
                        return ending.result()[0], bool(key)
            except asyncio.CancelledError:
                await _try_to(talk.send(b"\x03"))
                raise
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
        raise ChannelTimeout("the command heeds neither its timeout nor Ctrl-C")

    async def _marked(self, talk: Talk, line: bytes, after: bytes) -> tuple[bytes, list[bytes]]:
        """Run a line between two marks. The second is asked for again when it does not come."""
        mark = b"hc" + os.urandom(6).hex().encode()
        word = split_mark(mark)
        await talk.send(b"echo %s.;%s;r=$?;%s\n" % (word, line, after))
        again, wait_s = b'echo "";echo %s.$r.\n' % word, _ASK_S
        await talk.send(again)
        begin, end = mark + b".", re.compile(re.escape(mark) + rb"\.(s?[0-9]{1,3})\.")
        told: list[bytes] = []
        size, has_begun = 0, False
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    text = await talk.line()
            except TimeoutError:
                wait_s *= 2
                await talk.send(again)
                continue
            if match := end.search(text):
                return match[1], told
            if not has_begun:
                has_begun = text.endswith(begin)
            elif text:
                told.append(text)
                size += len(text)
                if size > _MAX_TOLD:
                    raise RemoteProtocolError("the guest says more than it was asked for")

    @asynccontextmanager
    async def _conversing(self) -> AsyncIterator[Talk]:
        """Note whether the line is left in order."""
        if self._talk is None:
            raise ChannelReset("the line was given up")
        try:
            yield self._talk
        except GuestError:
            raise
        except BaseException:
            self._is_upset = True
            raise


async def _try_to(send: object) -> None:
    """Send a last key, whatever comes of it."""
    task = asyncio.ensure_future(send)  # type: ignore[call-overload]
    with contextlib.suppress(Exception):
        await asyncio.wait([task], timeout=1)
