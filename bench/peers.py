"""The host's side of those we compare with: the raw line, and the QEMU guest agent.

Blocking sockets, the fastest a host can be: nothing else runs while a peer is measured.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from pathlib import Path
from typing import Any, Final

__all__ = ["Qga", "RawBulk", "RawEcho"]

_TIMEOUT_S: Final = 300.0  # a peer that is silent so long is dead
_PIECE: Final = 1 << 20


def _connect(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(_TIMEOUT_S)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # as hostctl's own
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    line.connect(str(path))
    return line


class RawEcho:
    """One byte there and back."""

    def __init__(self, path: Path) -> None:
        self._line = _connect(path)

    def ping(self) -> float:
        """Return the seconds of one round trip."""
        begin = time.perf_counter()
        self._line.sendall(b"x")
        if self._line.recv(1) != b"x":
            raise ConnectionError("the raw echo ended")
        return time.perf_counter() - begin


class RawBulk:
    """Bytes one way, as fast as the port takes them."""

    def __init__(self, path: Path) -> None:
        self._line = _connect(path)
        self._buffer = bytearray(_PIECE)

    def put(self, data: bytes, *, keep: bool = True) -> float:
        """Send `data` into the guest's file, or into nothing; return the seconds."""
        begin = time.perf_counter()
        self._line.sendall(b"%c%016x" % (b"P" if keep else b"S", len(data)))
        self._line.sendall(data)
        if self._line.recv(1) != b"K":
            raise ConnectionError("the raw peer ended")
        return time.perf_counter() - begin

    def get(self, size_bytes: int) -> float:
        """Receive so many bytes of the guest's file, and drop them; return the seconds."""
        begin = time.perf_counter()
        self._line.sendall(b"G%016x" % size_bytes)
        left = size_bytes
        while left:
            got = self._line.recv_into(self._buffer, min(left, _PIECE))
            if not got:
                raise ConnectionError("the raw peer ended")
            left -= got
        return time.perf_counter() - begin


class Qga:
    """A client of the QEMU guest agent, as direct as the protocol allows."""

    def __init__(self, path: Path) -> None:
        self._line = _connect(path)
        self._reader = self._line.makefile("rb", buffering=_PIECE)
        number = time.time_ns() & 0xFFFFFFFF
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._line.sendall(b"\xff" + json.dumps(request).encode())
        while (
            json.loads(self._reader.readline().rpartition(b"\xff")[2] or b"{}").get("return")
            != number
        ):
            pass

    def call(self, command: str, **arguments: object) -> Any:
        """Run one command of the agent; its dashes are underscores here."""
        names = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._line.sendall(json.dumps({"execute": command, "arguments": names}).encode() + b"\n")
        answer = json.loads(self._reader.readline())
        if "return" not in answer:
            raise RuntimeError(f"{command}: {answer}")
        return answer["return"]

    def ping(self) -> float:
        """Return the seconds of one guest-ping."""
        begin = time.perf_counter()
        self.call("guest-ping")
        return time.perf_counter() - begin

    def exec(self, path: str, *words: str, capture: bool, poll_s: float) -> float:
        """Run a command to its end, asking for it every `poll_s`; return the seconds."""
        begin = time.perf_counter()
        started = self.call("guest-exec", path=path, arg=list(words), capture_output=capture)
        while True:
            if poll_s:
                time.sleep(poll_s)
            status = self.call("guest-exec-status", pid=started["pid"])
            if status["exited"]:
                break
        if status["exitcode"] or (capture and not (status["out-data"] and status["err-data"])):
            raise RuntimeError(f"{path}: {status}")
        return time.perf_counter() - begin

    def put(self, data: bytes, path: str, chunk: int) -> float:
        """Write `data` to `path`; return the seconds."""
        begin = time.perf_counter()
        handle = self.call("guest-file-open", path=path, mode="w")
        for at in range(0, len(data), chunk):
            text = base64.b64encode(data[at : at + chunk]).decode()
            self.call("guest-file-write", handle=handle, buf_b64=text)
        self.call("guest-file-close", handle=handle)
        return time.perf_counter() - begin

    def get(self, path: str, size_bytes: int, chunk: int) -> float:
        """Read `path` to its end; return the seconds."""
        begin = time.perf_counter()
        handle = self.call("guest-file-open", path=path, mode="r")
        got = 0
        while got < size_bytes:
            piece = self.call("guest-file-read", handle=handle, count=chunk)
            got += len(base64.b64decode(piece["buf-b64"]))
        self.call("guest-file-close", handle=handle)
        return time.perf_counter() - begin
