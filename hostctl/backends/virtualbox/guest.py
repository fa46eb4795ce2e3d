"""Guest control of one machine, for the channel above: the bridge's operations, typed and checked.

What the guest tells passes through here, so it is bounded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hostctl_channels.errors import (
    ChannelClosed,
    ChannelReset,
    ChannelTimeout,
    LoginFailed,
    RemoteProtocolError,
    RequestFailed,
    SpawnFailed,
)
from hostctl_channels.interface import Buffer, ExitStatus
from hostctl_channels.login import Login
from hostctl_channels.vbox.control import Node, Piece

from ...errors import BackendError, DeadlineExceeded
from .client import Bridge, borrow, give_back
from .faults import GuestFault
from .place import Place

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Link

    from .bridge.wire import Answer

__all__ = ["BridgedControl", "GuestEndpoint"]

logger = logging.getLogger(__name__)

CALL_S: Final = 60.0  # the bridge itself gives up a call after 5 s
MAX_TEXT: Final = 200
_MODE: Final = re.compile(r"[-dlcbpsw?]([-r][-w][-xsS][-r][-w][-xsS][-r][-w][-xtT])")
# VirtualBox tells errors of the guest in words, those of IPRT (iprt/errmsgdata).
_WORDS: Final = (
    (errno.ENOENT, ("No such file", "not found", "FILE_NOT_FOUND", "PATH_NOT_FOUND")),
    (errno.EACCES, ("ccess denied", "ACCESS_DENIED", "ermission")),
    (errno.EISDIR, ("IS_A_DIRECTORY", "s a directory")),
    (errno.ENOTDIR, ("NOT_A_DIRECTORY", "ot a directory")),
    (errno.ENOSPC, ("DISK_FULL", "o space")),
    (errno.EROFS, ("WRITE_PROTECT", "ead-only", "ead only")),
    (errno.EEXIST, ("ALREADY_EXISTS", "lready exists")),
)


@dataclass(frozen=True, slots=True)
class GuestEndpoint:
    """See Endpoint and Controlling: it is no line, but guest control of a machine."""

    place: Place
    machine: str

    async def open(self) -> Link:
        raise ChannelClosed("guest control is no line")

    def control(self) -> BridgedControl:
        return BridgedControl(self.place, self.machine)


class BridgedControl:
    """See GuestControl."""

    def __init__(self, place: Place, machine: str) -> None:
        self._place = place
        self._machine = machine

    @asynccontextmanager
    async def session(self, login: Login, timeout_s: float) -> AsyncIterator[BridgedSession]:
        bridge = borrow(self._place)
        try:
            with _translated("log in"):
                async with bridge.asking(
                    "guest.session",
                    timeout_s=None,
                    machine=self._machine,
                    user=login.user,
                    password=login.password or "",
                    domain="",
                    within_s=timeout_s,
                ) as answers:
                    session = BridgedSession(bridge, await anext(answers))
                    watch = asyncio.create_task(session.watch(answers))
                    try:
                        yield session
                    finally:
                        watch.cancel()
                        await asyncio.gather(watch, return_exceptions=True)
        finally:
            await give_back(bridge)


class BridgedSession:
    """See Session."""

    def __init__(self, bridge: Bridge, opened: Answer) -> None:
        self._bridge = bridge
        self._number = int(opened.value["session"])
        self._is_open = True
        self.additions = str(opened.value["additions"])[:80]

    @property
    def is_open(self) -> bool:
        return self._is_open and self._bridge.pid is not None

    async def start(self, exe: str, argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, int]:
        pairs = [f"{key}={value}" for key, value in env.items()]
        found = await self._value(
            "guest.start", session=self._number, exe=exe, argv=list(argv), env=pairs
        )
        return int(found["process"]), int(found["pid"])

    async def read(self, process: int) -> Piece | ExitStatus:
        answer = await self._call("guest.read", timeout_s=None, process=process)
        if answer.body is not None:
            return Piece(int(answer.value["stream"]), answer.body)
        return _status(str(answer.value["status"]), int(answer.value["code"]))

    async def write(self, process: int, data: Buffer, *, end: bool = False) -> None:
        view = memoryview(data).cast("B")
        while True:
            piece, view = bytes(view[: 1 << 20]), view[1 << 20 :]
            is_last = end and not view
            await self._call(
                "guest.write", timeout_s=None, process=process, end=is_last, body=piece
            )
            if not view:
                return

    async def terminate(self, process: int) -> None:
        await self._call("guest.terminate", process=process)

    async def look(self, path: str) -> Node:
        found = await self._value("guest.query", path=path, session=self._number)
        mode = _MODE.match(str(found["attributes"]))
        size = int(found["size"])
        if size < 0:
            raise RemoteProtocolError(f"a file of {size} bytes")
        number = _mode(mode[1]) if mode else None
        return Node(str(found["type"]), size, number, int(found["mtime_ns"]) / 1e9)

    async def open(self, path: str, *, write: bool, mode: int = 0) -> int:
        return int(
            await self._value("guest.open", path=path, session=self._number, write=write, mode=mode)
        )

    async def read_file(self, file: int, size_bytes: int) -> bytes:
        answer = await self._call("guest.read_file", file=file, size=size_bytes)
        body = answer.body or b""
        if len(body) > size_bytes:
            raise RemoteProtocolError(f"{len(body)} bytes of a file instead of {size_bytes}")
        return body

    async def write_file(self, file: int, data: Buffer) -> None:
        await self._call("guest.write_file", file=file, body=bytes(data))

    async def close_file(self, file: int) -> None:
        await self._call("guest.close", file=file)

    async def rename(self, source: str, target: str) -> None:
        await self._call("guest.rename", session=self._number, source=source, target=target)

    async def remove(self, path: str) -> None:
        await self._call("guest.remove", session=self._number, path=path)

    async def _value(self, op: str, *, path: str | None = None, **args: Any) -> Any:
        if path is not None:
            args["path"] = path
        return (await self._call(op, **args)).value

    async def _call(
        self, op: str, *, timeout_s: float | None = CALL_S, body: bytes | None = None, **args: Any
    ) -> Answer:
        if self._bridge.pid is None:
            self._is_open = False
            raise ChannelClosed("the session of guest control is over: its bridge has died")
        with _translated(op, self):
            async with self._bridge.asking(op, body=body, timeout_s=timeout_s, **args) as answers:
                return await anext(answers)

    def end(self) -> None:
        """Take note that it is over."""
        self._is_open = False

    async def watch(self, answers: AsyncGenerator[Answer, None]) -> None:
        """Take note when the bridge says so: it lets go of machines that end."""
        try:
            async for _ in answers:
                pass
        except BackendError as err:
            logger.debug("a session of guest control has ended: %s", err)
        self.end()


@contextlib.contextmanager
def _translated(what: str, session: BridgedSession | None = None) -> Iterator[None]:
    try:
        yield
    except GuestFault as err:
        if err.kind in ("gone", "silent") and session is not None:
            session.end()
        _raise(err, what)
    except DeadlineExceeded as err:
        raise ChannelTimeout(str(err)) from err
    except BackendError as err:
        if session is not None:
            session.end()
        raise ChannelClosed(str(err), hint=err.hint) from err


def _raise(err: GuestFault, what: str) -> NoReturn:
    text = _plain(err.message)
    if err.kind == "login":
        raise LoginFailed(f"guest control: {text}") from err
    if err.kind == "spawn":
        raise SpawnFailed(_errno(text), text) from err
    if err.kind in ("file", "read"):
        raise RequestFailed(_errno(text), text) from err
    if err.kind == "gone":
        raise ChannelReset("the session of guest control is over") from err
    if err.kind == "absent":
        raise ChannelTimeout(f"guest control: {text}", hint=_NO_ADDITIONS) from err
    raise ChannelTimeout(f"guest control: {what}: {text}") from err


_NO_ADDITIONS: Final = (
    "install the Guest Additions (on Debian virtualbox-guest-utils), or use the agent on a serial "
    "line: --channel serial"
)


def _errno(text: str) -> int:
    return next(
        (number for number, words in _WORDS if any(word in text for word in words)), errno.EIO
    )


def _plain(text: str) -> str:
    """Return VirtualBox's words without the code around them, printable, bounded."""
    text = re.sub(r"^0x[0-9a-f]{8} \((.*)\)$", r"\1", text.strip())
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])


def _status(status: str, code: int) -> ExitStatus:
    if status == "TerminatedSignal":
        return ExitStatus(None, code if 0 < code <= 64 else 9)
    if status == "TerminatedNormally" and 0 <= code <= 0xFFFFFFFF:
        return ExitStatus(code)
    if status in ("TerminatedAbnormally", "TimedOutKilled", "TimedOutAbnormally"):
        return ExitStatus(None, 9)
    if status in ("Down", "Error"):
        raise ChannelReset(f"the guest's service has ended under a command: {status}")
    raise RemoteProtocolError(f"no command ends with status {status[:40]!r} and code {code}")


def _mode(text: str) -> int:
    """Return the number of `rwxr-x---`."""
    mode = 0
    for index, letter in enumerate(text):
        if letter not in "-ST":
            mode |= 0o400 >> index
    for index, bit in ((2, 0o4000), (5, 0o2000), (8, 0o1000)):
        if text[index] in "sStT":
            mode |= bit
    return mode
