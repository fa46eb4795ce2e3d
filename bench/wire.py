"""The wire alone: bodies of 64 KiB through a socketpair, with another process at the far end.

No guest: what Python costs per byte, to be seen beside what the line can carry.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final

from hostctl_channels.wire import (
    Data,
    Done,
    Session,
    StreamDecoder,
    encode,
    encode_stdin,
    messages,
)
from hostctl_channels.wire.limits import VERSION
from hostctl_channels.wire.schema import HEADER, HELLO

from .samples import MB, Samples

__all__ = ["TASKS", "measure"]

_BODY: Final = 1 << 16
_BUFFER: Final = 256 * 1024  # as a port's
_NONCE: Final = b"0123456789abcdef"
_PATH: Final = b"/tmp/file"
_FORK: Final = multiprocessing.get_context("fork")

TASKS: Final = {
    "plain recv": "recv_into alone, nothing decoded: the ceiling",
    "get, bodies of 64 KiB": "each asked for, begun, ended by its nonce, and answered",
    "get, one long body": "64 KiB at a time, ended by its nonce",
    "stream, one long body": "the output of a command as it is produced",
    "stdin, frames of 64 KiB": "each with its line",
    "put, one long body": "64 KiB at a time after its request",
    "put, bodies of 64 KiB": "each with its request and its verdict",
}


def measure(samples: Samples, rounds: int, count: int) -> None:
    """Move `count` bodies each way, each round."""
    body = os.urandom(_BODY)
    runs: dict[str, Callable[[bytes, int], float]] = {
        "plain recv": _receive_plain,
        "get, bodies of 64 KiB": _decode_short,
        "get, one long body": _decode_long,
        "stream, one long body": _decode_stream,
        "stdin, frames of 64 KiB": _encode_stdin,
        "put, one long body": _encode_long,
        "put, bodies of 64 KiB": _encode_short,
    }
    for _ in range(rounds):
        for task, run in runs.items():
            seconds = run(body, count)
            samples.add(f"wire: {task}", "hostctl", "MB/s", [_BODY * count / seconds / MB])


# --- guest → host -----------------------------------------------------------------------------


def _receive_plain(body: bytes, count: int) -> float:
    with closing(_sending([body] * count)) as line:
        buffer, left = bytearray(_BUFFER), _BODY * count
        begin = time.perf_counter()
        while left:
            left -= _received(line, memoryview(buffer))
        return time.perf_counter() - begin


def _decode_short(body: bytes, count: int) -> float:
    answer = _frame(b"B") + body + _NONCE + _frame(b"D")
    session = _greeted()
    with closing(_sending([answer] * count)) as line:
        buffer = bytearray(_BUFFER)
        view = memoryview(buffer)
        begin = time.perf_counter()
        for _ in range(count):
            session.ask(messages.get(_PATH), _NONCE)
            left, size = len(answer), 0
            while left:  # the next answer cannot come before it is asked for
                got = _received(line, view[:left])
                left -= got
                for event in session.feed(buffer, got):
                    if isinstance(event, Data):
                        size += len(event.view)
            _check(size, _BODY)
        return time.perf_counter() - begin


def _decode_long(body: bytes, count: int) -> float:
    session = _greeted()
    session.ask(messages.get(_PATH), _NONCE)
    with closing(_sending([_frame(b"B"), *[body] * count, _NONCE + _frame(b"D")])) as line:
        buffer, size, done = bytearray(_BUFFER), 0, False
        begin = time.perf_counter()
        while not done:
            for event in session.feed(buffer, _received(line, memoryview(buffer))):
                if isinstance(event, Data):
                    size += len(event.view)
                done = isinstance(event, Done)
        _check(size, _BODY * count)
        return time.perf_counter() - begin


def _decode_stream(body: bytes, count: int) -> float:
    decoder = StreamDecoder(_NONCE)
    with closing(_sending([_NONCE, *[body] * count, _NONCE])) as line:
        buffer, size = bytearray(_BUFFER), 0
        begin = time.perf_counter()
        while not decoder.ended:
            for view in decoder.feed(buffer, _received(line, memoryview(buffer))):
                size += len(view)
        _check(size, _BODY * count)
        return time.perf_counter() - begin


def _greeted() -> Session:
    session = Session()
    session.greet(_NONCE)
    hello = _frame(b"H", HELLO.build({"version": VERSION, "features": b"agent=1"}))
    for _ in session.feed(hello, len(hello)):
        pass
    return session


def _frame(kind: bytes, body: bytes = b"") -> bytes:
    fields = {"kind": kind, "stream": 0, "nonce": _NONCE, "length": len(body)}
    return HEADER.build(fields) + body


# --- host → guest -----------------------------------------------------------------------------


def _encode_stdin(body: bytes, count: int) -> float:
    return _send_all(
        part
        for _ in range(count)
        for pair in encode_stdin(memoryview(body), _NONCE)
        for part in pair
    )


def _encode_long(body: bytes, count: int) -> float:
    request = encode(messages.put(_PATH, len(body) * count), _NONCE)
    return _send_all((*request, *[body] * count, *encode(messages.verdict(""), _NONCE)))


def _encode_short(body: bytes, count: int) -> float:
    return _send_all(_puts(body, count))


def _puts(body: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield from encode(messages.put(_PATH, len(body)), _NONCE)
        yield body
        yield from encode(messages.verdict(""), _NONCE)


def _send_all(parts: Iterable[bytes | memoryview]) -> float:
    """Send until the far end has it all; return the seconds."""
    ours, theirs = socket.socketpair()
    _start(_drain, theirs, ours)
    with closing(ours):
        begin = time.perf_counter()
        for part in parts:
            ours.sendall(part)
        ours.shutdown(socket.SHUT_WR)
        ours.recv(1)
        return time.perf_counter() - begin


# --- the far end ------------------------------------------------------------------------------


def _sending(parts: list[bytes]) -> socket.socket:
    """Return a socket whose far end sends all of this."""
    ours, theirs = socket.socketpair()
    _start(_pour, theirs, ours, parts)
    return ours


def _start(
    run: Callable[..., None], theirs: socket.socket, ours: socket.socket, *more: object
) -> None:
    for end in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)  # as hostctl's own
    _FORK.Process(target=run, args=(theirs, ours, *more), daemon=True).start()
    theirs.close()


def _pour(line: socket.socket, other: socket.socket, parts: list[bytes]) -> None:
    other.close()
    for part in parts:
        line.sendall(part)


def _drain(line: socket.socket, other: socket.socket) -> None:
    other.close()
    buffer = bytearray(1 << 20)
    while line.recv_into(buffer):
        pass
    line.sendall(b"K")


def _received(line: socket.socket, view: memoryview) -> int:
    if got := line.recv_into(view):
        return got
    raise ConnectionError("the far end is gone")


def _check(got: int, expected: int) -> None:
    if got != expected:
        raise AssertionError(f"{got} bytes decoded of {expected}")
