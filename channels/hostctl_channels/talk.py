"""A conversation with a shell over a link: lines out, marked answers in, all of it bounded.

The marks are random, and written so that an echo of the line that asks for one does not hold it.
Whatever else the line says (kernel messages, prompts, echoes) is kept for a moment, and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from typing import Final

from .errors import ChannelClosed, LocalProtocolError
from .links.interface import Link

__all__ = ["MAX_LINE", "Lines", "Talk", "clean", "split_mark"]

logger = logging.getLogger(__name__)

# Linux's tty keeps 4095 bytes of a line and drops the rest without a word; others keep 1024.
MAX_LINE: Final = 1000
_MAX_KEPT: Final = 64 * 1024
_READ: Final = 16 * 1024
_ESCAPES: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*\x07?|[()][0-9A-Za-z]|[@-Z\\^_])"
)


def clean(line: bytes) -> bytes:
    """Return a line without escape sequences and carriage returns."""
    return _ESCAPES.sub(b"", line).replace(b"\r", b"")


def split_mark(mark: bytes) -> bytes:
    """Write a mark as a shell reads it, so that the line's echo does not hold it."""
    return mark[:4] + b'""' + mark[4:]


class Lines:
    """Cuts what arrives into clean lines; keeps at most the last 64 KiB of an endless one."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come of the line that has not ended."""
        return bytes(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` ends."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest[-_MAX_KEPT:])
        return [clean(bytes(line[-_MAX_KEPT:])) for line in lines]


class Talk:
    """The host's side. After a cancellation `drop` what may still come."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lines = Lines()
        self._buffer = bytearray(_READ)
        self._last = bytearray()
        self._queue: list[bytes] = []

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def last_words(self) -> str:
        """Return the end of what was heard, for an error: printable, on one line."""
        text = clean(bytes(self._last[-200:])).decode("utf-8", "backslashreplace")
        return "".join(c if c.isprintable() else " " for c in text).strip() or "nothing"

    async def send(self, data: bytes, *, is_secret: bool = False) -> None:
        """Send bytes as they are.

        Raises:
            LocalProtocolError: a line of them is longer than any tty takes.
        """
        if any(len(line) > MAX_LINE for line in data.split(b"\n")):
            raise LocalProtocolError(f"a line of more than {MAX_LINE} bytes")
        logger.debug("> %s", "(a secret)" if is_secret else data[:80])
        await self._link.send(data)

    async def pending(self, timeout_s: float) -> bytes:
        """Return what comes within a time, as soon as something does."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._receive()
        except TimeoutError:
            return b""

    async def drop(self, quiet_s: float) -> None:
        """Drop what arrives until there is silence; at most a megabyte."""
        for _ in range((1 << 20) // _READ):
            if not await self.pending(quiet_s):
                break
        self._lines, self._queue = Lines(), []

    async def line(self) -> bytes:
        """Return the next line, clean; wait for it as long as the caller allows."""
        while not self._queue:
            self._queue = self._lines.feed(await self._receive())
        return self._queue.pop(0)

    async def hear(self, sign: bytes) -> None:
        """Wait for bytes that are no line, as long as the caller allows; drop what precedes."""
        heard = b""
        while sign not in heard:
            heard = heard[-len(sign) :] + await self._receive()

    async def answers(self, form: bytes, timeout_s: float) -> bool:
        """Send `form` with a fresh mark in it; tell whether a line with the mark comes back."""
        mark = b"hc" + os.urandom(6).hex().encode()
        await self.send(form % split_mark(mark))
        try:
            async with asyncio.timeout(timeout_s):
                while not (await self.line()).endswith(mark):
                    pass
        except TimeoutError:
            return False
        return True

    async def _receive(self) -> bytes:
        size = await self._link.receive_into(self._buffer)
        if not size:
            raise ChannelClosed("the far end closed the line")
        data = bytes(self._buffer[:size])
        self._last = (self._last + data)[-1024:]
        return data
