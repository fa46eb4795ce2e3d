"""Output of many machines on one stdout: whole lines, each with its machine's name, or as JSON.

A guest's output may be anything. What is kept of a line without an end is bounded, and on a
terminal no character of it can move the cursor into another machine's line.
"""

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from typing import Final

from . import render
from .several import Board, Event

MAX_LINE: Final = 64 * 1024  # of one line; the rest of it becomes a line of its own
STREAMS: Final = {1: "stdout", 2: "stderr"}

Write = Callable[[int, bytes], Awaitable[None]]  # a descriptor of ours, and what to write there


class Lines:
    """Cuts a stream of bytes after the last line that is whole."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are whole by now; of one that is too long, what is there."""
        self._rest += data
        end = self._rest.rfind(b"\n") + 1
        if len(self._rest) - end >= MAX_LINE:
            end = len(self._rest)
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        return whole

    def close(self) -> bytes:
        """Return the last line, if it has no end."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class Printer(Board):
    """Stdout and stderr, written to by many machines: one whole piece at a time."""

    def __init__(self, write: Write, *, json: bool, prefix: bool) -> None:
        super().__init__(json=json)
        self._write = write
        self._prefix = prefix
        self._turn = asyncio.Lock()

    async def put(self, event: Event) -> None:
        """See Board."""
        await self._out(1, json.dumps(event).encode() + b"\n")

    async def show(self, name: str, fd: int, data: bytes) -> None:
        """Write what a machine printed."""
        if not data:
            return
        if self.json:
            await self.put({"event": "output", "name": name, "stream": STREAMS[fd], **_text(data)})
        else:
            await self._out(fd, _laid_out(data, f"{name}: " if self._prefix else "", fd))

    async def _out(self, fd: int, data: bytes) -> None:
        async with self._turn:
            await self._write(fd, data)


class Voice:
    """One machine's output on a printer, in whole lines."""

    def __init__(self, printer: Printer, name: str) -> None:
        self._printer = printer
        self._name = name
        self._lines = {fd: Lines() for fd in STREAMS}

    async def write(self, fd: int, data: bytes) -> None:
        """Write what came on a stream."""
        await self._printer.show(self._name, fd, self._lines[fd].feed(data))

    async def close(self) -> None:
        """Write what is left of lines that have no end."""
        for fd, lines in self._lines.items():
            await self._printer.show(self._name, fd, lines.close())


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _laid_out(data: bytes, prefix: str, fd: int) -> bytes:
    show = _safe if os.isatty(fd) else bytes
    lines = data.removesuffix(b"\n").split(b"\n")
    return b"".join(prefix.encode() + show(line) + b"\n" for line in lines)


def _safe(line: bytes) -> bytes:
    text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
    return "\t".join(map(render.safe, text.split("\t"))).encode()
