"""The synchronous Job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hostctl_channels.interface import MAX_OUTPUT

from .loop import LoopThread

if TYPE_CHECKING:
    from hostctl_channels.interface import ExitStatus

    from ..job import Job as AsyncJob
    from ..job import JobStatus

__all__ = ["Job"]


class Job:
    """A command in the guest that outlives its caller."""

    def __init__(self, loop: LoopThread, job: AsyncJob) -> None:
        self._loop = loop
        self._async = job
        self.id = job.id

    def __repr__(self) -> str:
        return repr(self._async)

    def status(self) -> JobStatus:
        return self._loop.call(self._async.status())

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        return self._loop.call(self._async.wait(timeout_s))

    def follow(
        self, stdout: int = 0, stderr: int = 0, *, wait: bool = True
    ) -> Iterator[tuple[int, bytes]]:
        return self._loop.iterate(self._async.follow(stdout, stderr, wait=wait))

    def output(self, max_bytes: int = MAX_OUTPUT) -> tuple[bytes, bytes]:
        return self._loop.call(self._async.output(max_bytes))

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def forget(self, *, force: bool = False) -> None:
        self._loop.call(self._async.forget(force=force))
