"""A command of a staged channel: it runs as a whole, and its output comes at the end."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from typing import BinaryIO, NamedTuple

from .errors import LocalProtocolError, Refused
from .interface import STDERR, STDOUT, Buffer, Capability, ExitStatus

__all__ = ["Outcome", "StagedProcess"]


class Outcome(NamedTuple):
    """A command that has ended."""

    exit: ExitStatus
    stdout: bytes
    stderr: bytes


class StagedProcess:
    """See interface.Process. Nothing of it is live."""

    def __init__(
        self, run: Callable[[BinaryIO | None], Awaitable[Outcome]], *, wants_input: bool
    ) -> None:
        self._run = run
        self._input: BinaryIO | None = None
        self._task: asyncio.Future[Outcome] | None = None
        self._unread: list[tuple[int, bytes]] | None = None
        if wants_input:
            self._input = tempfile.TemporaryFile()  # noqa: SIM115  closed by `finish`
        else:
            self._begin()

    def _begin(self) -> asyncio.Future[Outcome]:
        if self._task is None:
            if self._input:
                self._input.seek(0)
            self._task = asyncio.ensure_future(self._run(self._input))
        return self._task

    async def read(self) -> tuple[int, bytes] | None:
        """See Process. Ends standard input."""
        outcome = await asyncio.shield(self._begin())
        if self._unread is None:
            both = ((STDOUT, outcome.stdout), (STDERR, outcome.stderr))
            self._unread = [(number, data) for number, data in both if data]
        return self._unread.pop(0) if self._unread else None

    async def write(self, data: Buffer) -> None:
        """See Process. Kept on the host until standard input ends."""
        if self._input is None:
            raise LocalProtocolError("the command was started without standard input")
        if self._task is None:
            self._input.write(data)

    async def close_stdin(self) -> None:
        """See Process."""
        if self._input is None:
            raise LocalProtocolError("the command was started without standard input")
        self._begin()

    async def signal(self, name: str) -> None:
        """See Process. There is no line left to send one by."""
        if self._task is None or not self._task.done():
            capability = Capability.SIGNAL.value
            raise Refused(f"this channel cannot: {capability}", capability)

    async def wait(self) -> ExitStatus:
        """See Process. Ends standard input."""
        return (await asyncio.shield(self._begin())).exit

    async def finish(self) -> None:
        """Give up waiting for it."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._input:
            self._input.close()
