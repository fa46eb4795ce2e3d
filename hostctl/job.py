"""Detached commands: started here, found again from any process, by the machine's name and an id.

They live in the guest, with what they print. Nothing about them is kept on this host, so nothing of
it can be stale: after a restore the guest's jobs are those of the restored world.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from hostctl_channels.errors import (
    ChannelClosed,
    ChannelReset,
    ChannelTimeout,
    OutputTooLarge,
    PortsBusy,
)
from hostctl_channels.interface import MAX_OUTPUT, STDERR, STDOUT, ExitStatus
from hostctl_channels.jobs import Jobs, JobState, JobStatus, Piece

from .errors import DeadlineExceeded, GuestError

if TYPE_CHECKING:
    from hostctl_channels.interface import Channel

__all__ = ["Job", "JobState", "JobStatus"]

T = TypeVar("T")

LOOK_S: Final = 10.0  # how long the guest itself waits, in one request, for something to tell
PATIENCE_S: Final = 60.0  # with a guest that does not answer: it restarts its agent, or is restored
_AGAIN_S: Final = 0.5


class Job:
    """A command in the guest that outlives its caller; its id and the machine find it again."""

    def __init__(self, reach: Callable[[], Awaitable[Channel]], id: str) -> None:
        self._reach = reach
        self.id = id

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    async def status(self) -> JobStatus:
        """Return how it is. Raises JobNotFound if the guest does not know it (any more)."""
        return await self._patiently(lambda jobs: jobs.look(self.id))

    async def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for its end, through restarts of the agent and pauses of the machine.

        Raises:
            DeadlineExceeded: it still runs after `timeout_s`; it is left alone.
            GuestError: it is lost: what watched it was killed.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = LOOK_S if end is None else max(0.0, min(LOOK_S, end - time.monotonic()))
            status = await self._patiently(partial(self._look, wait_s=left_s))
            if status.state is JobState.LOST:
                raise GuestError(f"job {self.id} is lost: what watched it was killed")
            if status.exit is not None:
                return status.exit
            if end is not None and time.monotonic() >= end:
                raise DeadlineExceeded(f"job {self.id} still runs after {timeout_s:g} s")

    async def follow(
        self, stdout: int = 0, stderr: int = 0, *, wait: bool = True
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (STDOUT or STDERR, bytes) from these offsets on, until it has ended.

        Without `wait`, until all that it has printed so far is read. A line that breaks meanwhile
        loses nothing and repeats nothing.

        Raises:
            LogCut: the guest went back to a snapshot in which less was printed.
        """
        while True:
            wait_s = LOOK_S if wait else 0.0
            ask = partial(self._read, stdout=stdout, stderr=stderr, wait_s=wait_s)
            piece = await self._patiently(ask)
            if piece.stdout:
                yield STDOUT, piece.stdout
            if piece.stderr:
                yield STDERR, piece.stderr
            stdout, stderr = stdout + len(piece.stdout), stderr + len(piece.stderr)
            if piece.is_last or not (wait or piece.stdout or piece.stderr):
                return

    async def output(self, max_bytes: int = MAX_OUTPUT) -> tuple[bytes, bytes]:
        """Return all that it printed so far on stdout and stderr.

        Raises:
            OutputTooLarge: more than `max_bytes` on one of them.
        """
        found = {STDOUT: bytearray(), STDERR: bytearray()}
        async for stream, data in self.follow(wait=False):
            found[stream] += data
            if len(found[stream]) > max_bytes:
                raise OutputTooLarge(f"job {self.id} printed more than {max_bytes} bytes")
        return bytes(found[STDOUT]), bytes(found[STDERR])

    async def signal(self, name: str) -> None:
        """Send a signal ("TERM", "INT", "KILL"…) to it and to its process group; quiet if it has
        ended.
        """
        await self._patiently(lambda jobs: jobs.signal(self.id, name))

    async def forget(self, *, force: bool = False) -> None:
        """Remove it and its log from the guest; `force` kills it first if it runs."""
        await self._patiently(lambda jobs: jobs.forget(self.id, force=force))

    async def _look(self, jobs: Jobs, wait_s: float) -> JobStatus:
        return await jobs.look(self.id, wait_s)

    async def _read(self, jobs: Jobs, stdout: int, stderr: int, wait_s: float) -> Piece:
        return await jobs.read(self.id, stdout, stderr, wait_s)

    async def _patiently(self, ask: Callable[[Jobs], Awaitable[T]]) -> T:
        """Ask, and ask again when the line broke: each of these requests may be repeated."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await ask(Jobs(await self._reach()))
            except (ChannelClosed, ChannelReset, ChannelTimeout, PortsBusy):
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(_AGAIN_S)
