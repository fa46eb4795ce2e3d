"""The guest agent's calls: deadlines, types, and its errors in our words.

What a call means is known here; what is made of several is left to process.py and files.py.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from ..errors import ChannelReset, Refused, RemoteProtocolError, RequestFailed
from ..interface import Buffer
from .exchange import Exchange
from .wire import MAX_SHORT, Failure, Request, field, is_carried, parse

__all__ = ["CALL_S", "MAX_CAPTURE", "Agent", "Status", "errno_of", "forbidden"]

CALL_S: Final = 20.0  # generous: an emulated guest under load stalls for seconds
_SLOW_S: Final = 120.0  # a call that moves megabytes at 2 MB/s, or waits for disks
# While file systems are frozen, for a snapshot of somebody's, the agent refuses nearly all.
_FROZEN_S: Final = 60.0
_THAW_LOOK_S: Final = 0.5
MAX_CAPTURE: Final = 16 << 20  # qga/commands.c, GUEST_EXEC_MAX_OUTPUT: it drops what comes after
_SLACK: Final = 4096  # what a reply has around its data
_MAX_RPCS: Final = 500  # QEMU 9 has 45
_MAX_INFO: Final = 50  # members of guest-get-osinfo: 9

# strerror's words in the C locale, which the agent appends to its own.
_ERRNO: Final = {os.strerror(number): number for number in errno.errorcode}


@dataclass(frozen=True, slots=True)
class Status:
    """What guest-exec-status tells of a command that has ended."""

    code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    is_truncated: bool


class Agent:
    """One guest agent. Waits `frozen_s` for others to thaw what they froze.

    Each call may raise what Exchange.ask does, and:

    Refused: the guest forbids the rpc, or its agent is too old for it.
    RequestFailed: it was tried and failed.
    """

    def __init__(self, exchange: Exchange, *, frozen_s: float = _FROZEN_S) -> None:
        self.exchange = exchange
        self.frozen_s = frozen_s

    def carries(self, text: bytes) -> bool:
        """Tell whether a word or a path can be said to it; see wire.is_carried."""
        return is_carried(text)

    async def call(
        self,
        rpc: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = CALL_S,
        max_reply_bytes: int = MAX_SHORT,
        path: bytes | None = None,
    ) -> object:
        """Return what the rpc returns, of any type."""
        request = Request.of(rpc, arguments, max_reply_bytes)
        left_s = self.frozen_s
        while True:
            value = parse(await self.exchange.ask(request, timeout_s))
            if not isinstance(value, Failure):
                return value
            if not value.is_frozen or left_s <= 0:
                _fail(rpc, value, path)
            await asyncio.sleep(_THAW_LOOK_S)
            left_s -= _THAW_LOOK_S

    async def ping(self) -> None:
        """Make a round trip."""
        await self.call("guest-ping")

    async def info(self, timeout_s: float = CALL_S) -> tuple[str, frozenset[str]]:
        """Return the agent's version and the rpcs that it allows."""
        value = await self.call("guest-info", timeout_s=timeout_s)
        commands = field(value, "supported_commands", list)
        if len(commands) > _MAX_RPCS:
            raise RemoteProtocolError(f"the guest agent claims {len(commands)} commands")
        names = {field(c, "name", str)[:80] for c in commands if field(c, "enabled", bool)}
        return field(value, "version", str)[:80], frozenset(names)

    async def os_info(self) -> dict[str, str]:
        """Return what the guest says of its system: "name", "version-id", "kernel-release"…"""
        value = await self.call("guest-get-osinfo")
        if not isinstance(value, dict) or len(value) > _MAX_INFO:
            raise RemoteProtocolError("the guest agent's information of its system is no such")
        return {str(key)[:80]: field(value, key, str)[:500] for key in value}

    async def set_time(self, unix_s: float) -> None:
        """Set the clock."""
        try:
            await self.call("guest-set-time", {"time": int(unix_s * 1e9)})
        except RequestFailed as err:
            # By then the clock is set; only the hardware's is not: there is none, or no hwclock.
            if "hwclock" not in err.message and "hardware clock" not in err.message:
                raise

    async def shutdown(self, mode: str) -> None:
        """Begin to "powerdown", "halt" or "reboot". A guest that obeys does not answer."""
        await self.call("guest-shutdown", {"mode": mode}, timeout_s=2.0)

    # --- frozen file systems --------------------------------------------------------------------

    async def freeze(self) -> int:
        """Freeze all file systems that can be; return how many."""
        return _count(await self.call("guest-fsfreeze-freeze", timeout_s=_SLOW_S))

    async def thaw(self) -> int:
        """Thaw all; return how many were frozen. Fine when none is."""
        return _count(await self.call("guest-fsfreeze-thaw", timeout_s=_SLOW_S))

    async def is_frozen(self) -> bool:
        """Tell whether it holds file systems frozen."""
        return await self.call("guest-fsfreeze-status") == "frozen"

    # --- commands -------------------------------------------------------------------------------

    async def start(self, path: bytes, words: tuple[bytes, ...], data: Buffer | None) -> int:
        """Start a program, with all of its standard input; return its pid."""
        arguments: dict[str, object] = {
            "path": path.decode(),
            "arg": [word.decode() for word in words],
            "capture-output": True,
        }
        if data is not None:
            arguments["input-data"] = base64.b64encode(data).decode()
        value = await self.call("guest-exec", arguments, timeout_s=_SLOW_S)
        return field(value, "pid", int)

    async def status(self, pid: int) -> Status | None:
        """Return how a program ended, or None if it has not. The agent tells that once only."""
        limit = min(_base64(MAX_CAPTURE) * 2 + _SLACK, self.exchange.max_reply_bytes)
        value = await self.call(
            "guest-exec-status", {"pid": pid}, timeout_s=_SLOW_S, max_reply_bytes=limit
        )
        if not field(value, "exited", bool):
            return None
        code, signal = field(value, "exitcode", int, -1), field(value, "signal", int, -1)
        if (code < 0) == (signal < 0) or code > 255 or signal > 64:
            raise RemoteProtocolError(f"no command ends with status {code} and signal {signal}")
        return Status(
            code if code >= 0 else None,
            signal if signal >= 0 else None,
            _decoded(value, "out-data"),
            _decoded(value, "err-data"),
            field(value, "out-truncated", bool, False)
            or field(value, "err-truncated", bool, False),
        )

    # --- files ----------------------------------------------------------------------------------

    async def open(self, path: bytes, mode: str) -> int:
        """Open a file ("r", "r+", "w"); return its handle. A FIFO would hang the agent."""
        value = await self.call("guest-file-open", {"path": path.decode(), "mode": mode}, path=path)
        if type(value) is not int:
            raise RemoteProtocolError("the guest agent's file handle is no number")
        return value

    async def read(self, handle: int, size_bytes: int, path: bytes) -> tuple[bytes, bool]:
        """Return up to so many bytes, and whether that was the end."""
        value = await self.call(
            "guest-file-read",
            {"handle": handle, "count": size_bytes},
            timeout_s=_SLOW_S,
            max_reply_bytes=_base64(size_bytes) + _SLACK,
            path=path,
        )
        data = _decoded(value, "buf-b64")
        if len(data) > size_bytes or field(value, "count", int) != len(data):
            raise RemoteProtocolError("the guest agent read another number of bytes than it says")
        return data, field(value, "eof", bool)

    async def write(self, handle: int, data: memoryview, path: bytes) -> int:
        """Write; return how many bytes were."""
        arguments = {"handle": handle, "buf-b64": base64.b64encode(data).decode()}
        value = await self.call("guest-file-write", arguments, timeout_s=_SLOW_S, path=path)
        count = field(value, "count", int)
        if not 0 < count <= len(data):
            raise RemoteProtocolError(f"the guest agent wrote {count} of {len(data)} bytes")
        return count

    async def shut(self, handle: int, path: bytes) -> None:
        """Close a file; what was written is in it then, or this fails."""
        await self.call("guest-file-close", {"handle": handle}, path=path)


def errno_of(text: str) -> int:
    """Return the number of the error whose words end a message, 5 (EIO) if none does."""
    text = text.rstrip("')\\" + '". ')
    return next((number for words, number in _ERRNO.items() if text.endswith(words)), errno.EIO)


def forbidden(rpc: str, capability: str | None = None) -> Refused:
    """Return the error for an rpc that the guest does not allow: it names the setting to change."""
    return Refused(
        f"the guest agent does not allow {rpc}",
        capability or rpc,
        hint=f"in the guest, take {rpc} out of BLACKLIST_RPC or FILTER_RPC_ARGS in "
        "/etc/sysconfig/qemu-ga, or add it to allow-rpcs (block-rpcs) in "
        "/etc/qemu/qemu-ga.conf, and restart qemu-guest-agent",
    )


def _fail(rpc: str, failure: Failure, path: bytes | None) -> NoReturn:
    if failure.is_frozen:
        raise RequestFailed(
            errno.EBUSY,
            f"{rpc}: the guest's file systems are frozen",
            hint="a snapshot with --quiesce is under way, or its maker was killed",
        )
    if failure.is_stale:
        raise ChannelReset(f"{rpc}: the guest agent began anew, or the guest was restored")
    if failure.is_unknown:
        raise forbidden(rpc)
    raise RequestFailed(errno_of(failure.text), f"{rpc}: {failure.text}", path=path)


def _count(value: object) -> int:
    if type(value) is not int:
        raise RemoteProtocolError("the guest agent's count of file systems is no number")
    return value


def _decoded(value: object, name: str) -> bytes:
    try:
        return base64.b64decode(field(value, name, str, ""), validate=True)
    except (binascii.Error, ValueError) as err:
        raise RemoteProtocolError(f"the guest agent's {name!r} is no base64") from err


def _base64(size_bytes: int) -> int:
    return (size_bytes + 2) // 3 * 4
