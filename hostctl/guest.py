"""The inside of a machine: commands and files, in the words a caller has (paths, text, keywords).

What a machine's life has to do with it is machine.py's; what travels is the channel's.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, BinaryIO

from .localfile import replacing, sized

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer, Channel, Command, FileInfo, Process, Result
    from hostctl_channels.interface import Progress as ByteProgress
    from hostctl_channels.jobs import JobStatus

    from .job import Job

    LocalPath = str | os.PathLike[str]
    Env = Mapping[str, str] | Mapping[bytes, bytes] | None

__all__ = ["MAX_READ", "Guest"]

MAX_READ = 64 * 1024 * 1024


class Guest(ABC):
    """What can be done inside a machine that runs; its channel connects by itself."""

    @abstractmethod
    async def _reach(self) -> Channel:
        """Return the channel to a guest that is awake. Raises WrongState when it is not."""

    @abstractmethod
    def _note(self, kind: str, **detail: object) -> None:
        """Tell whoever watches what was done in the guest."""

    async def exec(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        check: bool = False,
        usage: bool = False,
    ) -> Result:
        """Run a command, without a shell, to its end. `check` raises CommandFailed unless ok."""
        from hostctl_channels.interface import Command

        command = Command.of(*argv, env=env, cwd=cwd, user=user, timeout_s=timeout_s, usage=usage)
        result = await (await self._reach()).exec(command, input=input)
        return result.check() if check else result

    async def shell(
        self,
        line: str,
        *,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        check: bool = False,
        usage: bool = False,
    ) -> Result:
        """Run a line of the guest's /bin/sh."""
        return await self.exec(
            "sh",
            "-c",
            line,
            env=env,
            cwd=cwd,
            user=user,
            input=input,
            timeout_s=timeout_s,
            check=check,
            usage=usage,
        )

    def process(
        self,
        *argv: str | bytes,
        stdin: bool = False,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        usage: bool = False,
    ) -> AbstractAsyncContextManager[Process]:
        """Run a command with live streams; leaving the context kills it if it still runs."""
        from hostctl_channels.interface import Command

        command = Command.of(*argv, env=env, cwd=cwd, user=user, timeout_s=timeout_s, usage=usage)
        return self._process(command, stdin)

    async def spawn(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> Job:
        """Start a command that outlives this process, the channel and the agent; return its job.

        What it prints is kept in the guest, up to `keep_bytes` (16 MiB) of each stream.

        Raises:
            Refused: the guest lacks what jobs need, or that user.
        """
        from hostctl_channels.interface import Command
        from hostctl_channels.jobs import KEEP_BYTES, Jobs

        command = Command.of(*argv, env=env, cwd=cwd, user=user, timeout_s=timeout_s)
        jobs = Jobs(await self._reach())
        id = await jobs.spawn(command, keep_bytes=keep_bytes or KEEP_BYTES, input=input)
        self._note("job-started", job=id, command=str(command))
        return self.job(id)

    def job(self, id: str) -> Job:
        """Return a job by its id, whoever started it; nobody is asked yet."""
        from .job import Job

        return Job(self._reach, id)

    async def jobs(self) -> tuple[JobStatus, ...]:
        """Return how every job is that the guest knows, in the order of their starts."""
        from hostctl_channels.jobs import Jobs

        return await Jobs(await self._reach()).list()

    async def put(
        self,
        source: LocalPath | BinaryIO | bytes,
        guest_path: str | bytes,
        *,
        mode: int | None = None,
        mtime_s: float | None = None,
        owner: str | None = None,
        verify: str | None = None,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        """Write a path, an open file or bytes to `guest_path`, replaced whole or not at all."""
        from hostctl_channels.interface import PutOptions

        options = PutOptions(mode=mode, mtime_s=mtime_s, owner=owner, verify=verify)
        with sized(source) as (file, size_bytes):
            channel, path = await self._reach(), os.fsencode(guest_path)
            info = await channel.put(file, size_bytes, path, options, progress)
        self._note("put", path=_text(path), size_bytes=info.size_bytes)
        return info

    async def get(
        self,
        guest_path: str | bytes,
        destination: LocalPath | BinaryIO,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        """Read a guest file to a path, replaced whole or not at all, or into an open file.

        `stat` asks for its mode and times too; nothing is done with them here.
        """
        with replacing(destination) as sink:
            channel, path = await self._reach(), os.fsencode(guest_path)
            info = await channel.get(
                path,
                sink,
                stat=stat,
                verify=verify,
                max_bytes=max_bytes,
                progress=progress,
            )
        self._note("got", path=_text(path), size_bytes=info.size_bytes)
        return info

    async def read(self, guest_path: str | bytes, max_bytes: int = MAX_READ) -> bytes:
        """Return the content of a guest file of at most `max_bytes`."""
        import io

        sink = io.BytesIO()
        await self.get(guest_path, sink, max_bytes=max_bytes)
        return sink.getvalue()

    async def ping(self) -> float:
        """Return the seconds that a round trip to the agent took."""
        return await (await self._reach()).ping()

    @contextlib.asynccontextmanager
    async def _process(self, command: Command, stdin: bool) -> AsyncIterator[Process]:
        channel = await self._reach()
        async with channel.spawn(command, stdin=stdin) as process:
            yield process


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
