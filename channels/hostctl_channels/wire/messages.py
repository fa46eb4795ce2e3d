"""What the two sides say, as values: requests become words of a line, frames become NamedTuples.

Only what the declarations of schema.py would build passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ..errors import RemoteProtocolError
from .layout import split
from .limits import VERSION

__all__ = [
    "HELD",
    "Begin",
    "Data",
    "Done",
    "End",
    "Event",
    "Exit",
    "Failure",
    "Hello",
    "Pong",
    "Ready",
    "Request",
    "Started",
    "clock",
    "entropy",
    "execute",
    "get",
    "hello",
    "parse",
    "ping",
    "put",
    "rescan",
    "restart",
    "signal",
    "verdict",
]


# --- host → guest -----------------------------------------------------------------------------


class Request(NamedTuple):
    """One request: its letter, its words, and how many bytes of body follow."""

    kind: bytes
    words: tuple[bytes, ...] = ()
    length: int = 0


HELD: Final = ("=", "=")


def hello() -> Request:
    """Ask for the greeting: the lowest and the highest version we speak."""
    return Request(b"H", (b"%d" % VERSION, b"%d" % VERSION))


def ping() -> Request:
    """Ask for a pong."""
    return Request(b"N")


def execute(
    argv: Sequence[bytes],
    env: Sequence[tuple[bytes, bytes]] = (),
    *,
    streams: tuple[str, str] | None = None,
    stdin: bool = False,
    timeout_s: float | None = None,
    cwd: bytes | None = None,
    user: str | None = None,
    usage: bool = False,
) -> Request:
    """Run `argv`.

    With `streams`, the numbers of the two ports its output goes to live, or HELD for those that the
    last exit left open; else it is kept and sent at the end.
    """
    options: list[tuple[bytes, list[bytes]]] = []
    if stdin:
        options.append((b"i", []))
    if usage:
        options.append((b"r", []))
    if timeout_s is not None:
        options.append((b"t", [_seconds(timeout_s)]))
    if cwd:
        options.append((b"d", [cwd]))
    if user:
        options.append((b"u", [user.encode()]))
    if env:
        options.append((b"e", [b"%d" % len(env), *(k + b"=" + v for k, v in env)]))
    letters = b"".join(letter for letter, _ in options) + b"-"
    values = [word for _, words in options for word in words]
    out, err = streams or ("-", "-")
    return Request(b"X", (out.encode(), err.encode(), letters, *values, *argv))


def signal(port: str, name: str) -> Request:
    """Signal what runs on another port; "0" asks only whether its worker lives."""
    return Request(b"K", (port.encode(), name.encode()))


def restart(port: str) -> Request:
    """End the worker of another port, and all it runs; a new one follows."""
    return Request(b"R", (port.encode(),))


def rescan() -> Request:
    """Look for new ports now."""
    return Request(b"S")


def put(
    path: bytes,
    size_bytes: int,
    *,
    mode: int | None = None,
    mtime_s: float | None = None,
    owner: str | None = None,
    verify: bool = False,
) -> Request:
    """Write the `size_bytes` of body to `path`; a line `verdict` follows the body."""
    base = 0o644 if mode is None else mode
    umask = 0o666 & ~base
    chmod = b"" if base == 0o666 & ~umask else b"%o" % base  # a fork saved for a mode without x
    mtime = b"" if mtime_s is None else b"%d" % mtime_s
    words = (path, b"%o" % umask, chmod, mtime, (owner or "").encode(), _flag(verify))
    return Request(b"P", words, size_bytes)


def verdict(sha256: str) -> Request:
    """End a put's body: all was sent, and this is its digest (or nothing)."""
    return Request(b"V", (sha256.encode(),))


def get(path: bytes, *, stat: bool = False, verify: bool = False) -> Request:
    """Send the file at `path`."""
    return Request(b"G", (path, _flag(stat), _flag(verify)))


def clock(unix_s: float) -> Request:
    """Set the clock."""
    return Request(b"C", (b"%d" % round(unix_s),))


def entropy(seed: bytes | bytearray | memoryview) -> Request:
    """Feed the random pool, which is 32 bytes: with a digest of the seed, as its words are text."""
    import hashlib  # here, as few commands need it

    return Request(b"F", (hashlib.blake2s(seed).hexdigest().encode(),))


def _seconds(value: float) -> bytes:
    return f"{value:.3f}".rstrip("0").rstrip(".").encode()  # whole ones suit any `sleep`


def _flag(value: bool) -> bytes:
    return b"1" if value else b""


# --- guest → host -----------------------------------------------------------------------------


class Ready(NamedTuple):
    """The agent has opened the port anew: whatever was under way is over."""


class Hello(NamedTuple):
    """The greeting, after which nothing old follows."""

    version: int
    features: frozenset[str]


class Pong(NamedTuple):
    """The answer to a ping."""


class Started(NamedTuple):
    """The command may be sent standard input now."""


class Begin(NamedTuple):
    """A raw body follows: of a file (0), of stdout (1) or stderr (2)."""

    stream: int


class Data(NamedTuple):
    """A piece of a raw body. The view is borrowed: it dies at the next feed."""

    view: memoryview


class End(NamedTuple):
    """The raw body is complete."""


class Exit(NamedTuple):
    """The command has ended. Exactly one of code and signal counts: signal, if it is not 0."""

    code: int
    signal: int
    timed_out: bool
    times_s: tuple[float, float] | None
    max_rss_bytes: int | None
    holds_streams: bool = False


class Done(NamedTuple):
    """The request succeeded; facts of a file where asked for."""

    mode: int | None = None
    mtime_s: float | None = None
    sha256: str | None = None


class Failure(NamedTuple):
    """The request failed in the guest, with its errno and words for a person."""

    errno: int
    text: str


Event: TypeAlias = Ready | Hello | Pong | Started | Begin | Data | End | Exit | Done | Failure


def parse(kind: bytes, stream: int, body: bytes) -> Event:
    """Make an event of a frame whose length is within its limit.

    Raises RemoteProtocolError on any other bytes.
    """
    if stream and (kind != b"B" or stream > 2):
        raise RemoteProtocolError(f"a frame {kind!r} of stream {stream}")
    if kind == b"B":
        return Begin(stream)
    try:
        return _PARSERS[kind](body)
    except ValueError as err:
        raise RemoteProtocolError(f"a malformed frame {kind!r}: {err}") from err


def _hello(body: bytes) -> Hello:
    version, features = split("HELLO", body)
    return Hello(version, frozenset(features.decode("ascii").split()))


def _exit(body: bytes) -> Exit:
    code, number, flags, user_ms, system_ms, rss_kib = split("EXIT", body)
    if number > 64 or flags > 7 or (number and code):
        raise ValueError("no such exit")
    times = (user_ms / 1000, system_ms / 1000) if flags & 2 else None
    return Exit(code, number, bool(flags & 1), times, rss_kib * 1024 or None, bool(flags & 4))


_FACTS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "mode": (r"[0-7]{1,5}", lambda text: int(text, 8)),
    "mtime": (r"-?[0-9]{1,12}", float),
    "sha256": (r"[0-9a-f]{64}", str),
}


_DONE: Final = Done()


def _done(body: bytes) -> Done:
    if not body:
        return _DONE  # most of them
    found: dict[str, Any] = {}
    for word in split("DONE", body)[0].decode("ascii").split():
        name, _, value = word.partition("=")
        pattern, convert = _FACTS.get(name, ("(?!)", str))
        if name in found or not re.fullmatch(pattern, value):
            raise ValueError(f"no such fact: {word[:80]!r}")
        found[name] = convert(value)
    return Done(found.get("mode"), found.get("mtime"), found.get("sha256"))


def _failure(body: bytes) -> Failure:
    errno, words = split("ERROR", body)
    text = words.decode("utf-8", "backslashreplace")
    return Failure(errno, "".join(c if c.isprintable() else "?" for c in text))


_PARSERS: Final[dict[bytes, Callable[[bytes], Event]]] = {
    b"R": lambda _: Ready(),
    b"H": _hello,
    b"P": lambda _: Pong(),
    b"S": lambda _: Started(),
    b"X": _exit,
    b"D": _done,
    b"E": _failure,
}
