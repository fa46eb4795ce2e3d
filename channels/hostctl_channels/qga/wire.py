"""The guest agent's language: JSON lines both ways, and a way back to order after a lost line.

Bytes in, replies out; no I/O, no clock. The agent is hostile: a line's length, its number of
values and their types are checked before anything of it is believed.

Spec: QEMU's docs/interop/qemu-ga-ref ("guest-sync-delimited"), qga/qapi-schema.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from ..errors import LocalProtocolError, RemoteProtocolError

__all__ = ["MAX_SHORT", "Conversation", "Failure", "Request", "field", "is_carried", "parse"]

T = TypeVar("T")

DELIMITER: Final = 0xFF  # no byte of UTF-8, so it is in no JSON: it ends whatever was unfinished
MAX_SHORT: Final = 256 * 1024  # a reply that carries no data; guest-info is 4 KiB
# What may be thrown away before an answer to a sync: two outputs of 16 MiB in base64, that somebody
# asked for and did not wait for, and as much again.
MAX_JUNK: Final = 96 << 20
# A reply's values: base64 has none of these bytes, so even the largest reply has few of them.
# Python makes an object of 60 bytes from three of "[],[],…": 45 MB of them would be a gigabyte.
MAX_VALUES: Final = 10_000
MAX_DEPTH: Final = 32  # the schema's deepest is 6
MAX_TEXT: Final = 500  # of an error's words
MAX_SYNC: Final = 200  # of the answer to a sync
_ANSWER: Final = re.compile(rb'\s*\{\s*"return"\s*:\s*(\d{1,19})\s*\}\s*')


class Request(NamedTuple):
    """One call of the agent, as bytes, and how long its reply may be."""

    rpc: str
    text: bytes
    max_reply_bytes: int = MAX_SHORT

    @classmethod
    def of(
        cls,
        rpc: str,
        arguments: Mapping[str, object] | None = None,
        max_reply_bytes: int = MAX_SHORT,
    ) -> Request:
        """Make a request. Raises LocalProtocolError for a text that JSON cannot carry."""
        call = {"execute": rpc, **({"arguments": arguments} if arguments else {})}
        try:
            # Raw UTF-8, for agents before QEMU 3.1 read escapes of two halves wrongly.
            text = json.dumps(call, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as err:
            raise LocalProtocolError(f"{rpc}: the guest agent carries UTF-8 only") from err
        return cls(rpc, text + b"\n", max_reply_bytes)


_NO_RPC: Final = re.compile(r"\b[Cc]ommand \S+ has (been disabled|not been found)")
_NO_HANDLE: Final = re.compile(r"\bhandle '\d+' has not been found")


class Failure(NamedTuple):
    """The agent said no."""

    kind: str  # its class: CommandNotFound, GenericError
    text: str

    @property
    def is_unknown(self) -> bool:
        """True if there is no such rpc, or it is forbidden. All agents know this class."""
        # By its words too: libvirt passes those on, and not the class.
        return self.kind == "CommandNotFound" or _NO_RPC.search(self.text) is not None

    @property
    def is_stale(self) -> bool:
        """True if it does not know a file that it had opened (qga/commands-posix.c)."""
        return _NO_HANDLE.search(self.text) is not None

    @property
    def is_frozen(self) -> bool:
        """True if it is forbidden only while file systems are frozen (qga/main.c)."""
        return self.is_unknown and "frozen" in self.text


class _Phase(Enum):
    NOISE = "until a delimiter"
    SYNC = "the line after a delimiter"
    IDLE = "nothing"
    BUSY = "a reply"


_DELIMITERS: Final = re.compile(rb"\xff+")  # a guest may send nothing else: a run is one


class Conversation:
    """What one connection may say next. After RemoteProtocolError it is of no more use."""

    def __init__(self) -> None:
        self._phase = _Phase.NOISE
        self._line = bytearray()
        self._limit = MAX_SHORT
        self._number = -1
        self._junk = 0

    @property
    def is_synced(self) -> bool:
        """True once a sync was answered: what comes from now on is ours."""
        return self._phase in (_Phase.IDLE, _Phase.BUSY)

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way."""
        return self._phase is _Phase.IDLE

    def sync(self, number: int) -> bytes:
        """Return what makes the agent forget half a request and echo `number`.

        May be repeated with another number while there is no answer: the last one counts.
        """
        assert not self.is_synced
        self._number = number
        request = Request.of("guest-sync-delimited", {"id": number})
        return bytes((DELIMITER,)) + request.text

    def ask(self, request: Request) -> bytes:
        """Return the bytes of a request; its reply comes out of `feed`."""
        assert self.is_idle
        self._phase = _Phase.BUSY
        self._limit = request.max_reply_bytes
        self._line.clear()
        return request.text

    def feed(self, data: memoryview) -> bytes | None:
        """Take bytes; return the reply's line when it is whole.

        Raises:
            RemoteProtocolError: too long, too much, or not asked for.
        """
        raw = bytes(data)
        if self.is_synced:
            return self._collect(raw)
        self._junk += len(raw)
        if self._junk > MAX_JUNK:
            raise RemoteProtocolError(f"the guest agent sent {MAX_JUNK} bytes and no answer")
        self._seek(raw)
        return None

    def _seek(self, raw: bytes) -> None:
        """Drop all but the answer to our sync, which is a line after a delimiter."""
        # Split once: a search from each delimiter anew would be quadratic in what the guest sends.
        for number, piece in enumerate(_DELIMITERS.split(raw)):
            if self.is_synced:
                raise RemoteProtocolError("the guest agent talks without being asked")
            if number:
                self._phase = _Phase.SYNC
                self._line.clear()
            if self._phase is _Phase.SYNC:
                self._take_sync_line(piece)

    def _take_sync_line(self, piece: bytes) -> None:
        head, end, rest = piece.partition(b"\n")
        self._line += head
        if len(self._line) > MAX_SYNC:
            self._phase = _Phase.NOISE
        elif end:
            found = _ANSWER.fullmatch(self._line)
            is_ours = found is not None and int(found[1]) == self._number
            self._phase = _Phase.IDLE if is_ours else _Phase.NOISE
            if is_ours and rest:
                raise RemoteProtocolError("the guest agent talks without being asked")

    def _collect(self, raw: bytes) -> bytes | None:
        if self._phase is _Phase.IDLE:
            raise RemoteProtocolError("the guest agent talks without being asked")
        end = raw.find(b"\n")
        self._line += raw[: end if end >= 0 else len(raw)]
        if len(self._line) > self._limit:
            raise RemoteProtocolError(f"a reply of the guest agent exceeds {self._limit} bytes")
        if end < 0:
            return None
        if end + 1 != len(raw):
            raise RemoteProtocolError("the guest agent answers twice")
        self._phase = _Phase.IDLE
        line, self._line = bytes(self._line), bytearray()
        return line


def parse(line: bytes) -> object:
    """Return what a reply returns, or a Failure.

    Raises:
        RemoteProtocolError: it is no reply.
    """
    _check_size(line)
    try:
        reply = json.loads(line.decode())
    except (ValueError, RecursionError) as err:
        raise RemoteProtocolError("a reply of the guest agent is no JSON") from err
    if not isinstance(reply, dict):
        raise RemoteProtocolError("a reply of the guest agent is no object")
    if "error" in reply:
        error = reply["error"]
        return Failure(field(error, "class", str)[:80], printable(field(error, "desc", str)))
    if "return" not in reply:
        raise RemoteProtocolError("a reply of the guest agent neither returns nor fails")
    value: object = reply["return"]
    return value


def _check_size(line: bytes) -> None:
    opened = line.count(b"[") + line.count(b"{")
    if opened + line.count(b",") > MAX_VALUES:
        raise RemoteProtocolError(f"a reply of the guest agent has over {MAX_VALUES} values")
    if opened > MAX_DEPTH and _is_deep(line):
        raise RemoteProtocolError("a reply of the guest agent is too deep")


def _is_deep(line: bytes) -> bool:
    """Tell whether brackets are nested deeper than any reply of the schema, strings included.

    At most MAX_VALUES brackets are looked at.
    """
    depth = 0
    for byte in line.translate(None, delete=_OTHERS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))


def field(value: object, name: str, kind: type[T], default: T | None = None) -> T:
    """Return a member of an object of the guest's, if it is of the type that the schema says.

    Raises:
        RemoteProtocolError: it is not, or is missing without a default.
    """
    found = value.get(name, default) if isinstance(value, dict) else None
    if type(found) is not kind:  # by identity: True is no number
        raise RemoteProtocolError(f"the guest agent's {name!r} is no {kind.__name__}")
    return found


def printable(text: str) -> str:
    """Return words of the guest's fit for one line of a terminal."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line[:MAX_TEXT])


def is_carried(text: bytes) -> bool:
    """Tell whether the agent's JSON can carry this text.

    Not what is no UTF-8, and not Unicode's non-characters, which QEMU's parser refuses.
    """
    try:
        return not any(_is_no_character(ord(c)) for c in text.decode() if c > "\ufdcf")
    except UnicodeDecodeError:
        return False


def _is_no_character(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
