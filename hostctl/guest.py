"""The inside of a machine: commands and files, in the words a caller has (paths, text, keywords).

What a machine's life has to do with it is machine.py's; what travels is the channel's.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from .localfile import replacing, sized

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer, Channel, Command, FileInfo, Process, Result
    from hostctl_channels.interface import Progress as ByteProgress
    from hostctl_channels.jobs import JobStatus
    from hostctl_channels.terminal import Size, Terminal

    from .forward import Forward, Trouble
    from .job import Job
    from .tree import TreeProgress, TreeReport

    LocalPath = str | os.PathLike[str]
    Env = Mapping[str, str] | Mapping[bytes, bytes] | None

__all__ = ["MAX_CONNECTIONS", "MAX_READ", "Guest"]

MAX_READ = 64 * 1024 * 1024
MAX_CONNECTIONS = 3  # at once: a machine has four pairs of ports, and commands need one


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

    def terminal(
        self,
        *argv: str | bytes,
        rows: int = 24,
        columns: int = 80,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        plain: bool = False,
    ) -> AbstractAsyncContextManager[Terminal]:
        """Run a command, or the login shell, at a terminal; leaving the context kills what runs.

        A tool of the guest makes the terminal. With `plain`, a guest without one gives the command
        plain streams, and `Terminal.is_real` is False. Set TERM in `env`.

        Raises:
            Refused: there is no such tool, or the channel has no live streams.
        """
        from hostctl_channels.interface import Command
        from hostctl_channels.terminal import Size

        shell = Command.of("sh", env=env, cwd=cwd, user=user, timeout_s=timeout_s)
        words = Command.of(*argv).argv if argv else ()
        return self._terminal(shell, words, Size(rows, columns), plain)

    def forward(
        self,
        local: int | LocalPath,
        guest: int | str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        trouble: Trouble | None = None,
    ) -> AbstractAsyncContextManager[Forward]:
        """Carry connections to a socket of this host to one in the guest, until the context ends.

        `local` is a port of this host's loopback, 0 for any that is free, or the path of a new
        socket, which only this user can open. `guest` is a port of the guest's loopback, HOST:PORT
        as the guest knows it, or an absolute path. Each connection takes ports of the machine, so
        only some are carried at once; more wait 20 s. `trouble` hears of those that failed.

        Raises:
            WrongState: the machine does not run.
            BackendError: the local address is in use.
            ConfigError: an address is none.
        """
        from .forward import forwarding

        return forwarding(self._reach, local, guest, max_connections, trouble)

    async def put(
        self,
        source: LocalPath | BinaryIO | bytes,
        guest_path: str | bytes,
        *,
        mode: int | None = None,
        mtime_s: float | None = None,
        owner: str | None = None,
        verify: str | None = None,
        resume: bool = False,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        """Write a path, an open file or bytes to `guest_path`, replaced whole or not at all.

        With `resume` what has come is kept in the guest when it breaks off, and the next such call
        goes on there, if both sides still hold the same so far. Holes are not sent then.
        """
        from hostctl_channels.interface import PutOptions

        options = PutOptions(mode=mode, mtime_s=mtime_s, owner=owner, verify=verify)
        with sized(source) as (file, size_bytes):
            channel, path = await self._reach(), os.fsencode(guest_path)
            if resume:
                from .resume import put_resumable

                info = await put_resumable(channel, file, size_bytes, path, options, progress)
            else:
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
        resume: bool = False,
        progress: ByteProgress | None = None,
    ) -> FileInfo:
        """Read a guest file to a path, replaced whole or not at all, or into an open file.

        `stat` asks for its mode and times too; nothing is done with them here. With `resume`, to a
        path only, what has come is kept beside it when it breaks off, and the next such call goes
        on there.
        """
        if resume and isinstance(destination, (str, os.PathLike)):
            from .resume import get_resumable

            return await get_resumable(
                await self._reach(),
                os.fsencode(guest_path),
                Path(destination),
                verify=verify,
                max_bytes=max_bytes,
                progress=progress,
            )
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

    async def put_tree(
        self,
        source: LocalPath,
        guest_path: str | bytes,
        *,
        exclude: Iterable[str | bytes] = (),
        replace: bool = False,
        partial: bool = False,
        owners: bool = False,
        special_bits: bool = False,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        """Make `guest_path` a copy of a local folder: whole, or as it was before.

        It must not be there, unless `replace`: then the old one goes when the new one is complete.
        After a failure `partial` keeps what came as `guest_path.partial`. `owners` keeps numeric
        owners, `special_bits` setuid, setgid and sticky; modes, times, links, holes always are.

        Raises:
            TransferFailed: it is there, its folder is missing, or the guest could not.
        """
        from . import tree

        return await tree.put_tree(
            await self._reach(),
            Path(source),
            _bare(guest_path),
            exclude=tree.Exclude(exclude),
            looks=tree.Looks(owners=owners, special_bits=special_bits),
            replace=replace,
            partial=partial,
            progress=progress,
        )

    async def get_tree(
        self,
        guest_path: str | bytes,
        destination: LocalPath,
        *,
        exclude: Iterable[str | bytes] = (),
        replace: bool = False,
        partial: bool = False,
        links: Literal["inside", "skip"] = "inside",
        owners: bool = False,
        special_bits: bool = False,
        max_bytes: int | None = None,
        max_files: int | None = None,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        """Make a local folder a copy of the guest's: whole, or as it was before.

        As `put_tree`, but the guest is not trusted: nothing outside `destination` is touched, and
        no more than `max_bytes` (16 GiB) and `max_files` (500 000) are taken. A link that leads
        out of the tree is an error, or left out with `links="skip"`.

        Raises:
            HostileTree: the guest sent what may not be written here.
            OutputTooLarge: it is more than allowed.
            FileExistsError: the destination is there.
            TransferFailed: the guest could not.
        """
        from . import tree

        return await tree.get_tree(
            await self._reach(),
            _bare(guest_path),
            Path(destination),
            policy=tree.Policy(
                max_bytes=tree.MAX_BYTES if max_bytes is None else max_bytes,
                max_files=tree.MAX_FILES if max_files is None else max_files,
                links=links,
                owners=owners,
                special_bits=special_bits,
                exclude=tree.Exclude(exclude),
            ),
            replace=replace,
            partial=partial,
            progress=progress,
        )

    async def sync_to(
        self,
        source: LocalPath,
        guest_path: str | bytes,
        *,
        exclude: Iterable[str | bytes] = (),
        delete: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        """Make a guest's folder equal to a local one, by moving only what changed.

        What has the same size, mode and time (with `checksum`: digest) is left alone; `delete`
        removes what is not in the source; `dry_run` only tells. Nothing changes before all has
        arrived; then each file is replaced at once. What is excluded is not looked at on any side.

        Raises:
            Refused: the guest lacks find, stat or tar.
            TransferFailed: the guest could not; some files may be new already.
        """
        from . import tree

        return await tree.sync_to(
            await self._reach(),
            Path(source),
            _bare(guest_path),
            exclude=tree.Exclude(exclude),
            looks=tree.Looks(),
            delete=delete,
            checksum=checksum,
            dry_run=dry_run,
            progress=progress,
        )

    async def sync_from(
        self,
        guest_path: str | bytes,
        destination: LocalPath,
        *,
        exclude: Iterable[str | bytes] = (),
        delete: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        links: Literal["inside", "skip"] = "inside",
        max_bytes: int | None = None,
        max_files: int | None = None,
        progress: TreeProgress | None = None,
    ) -> TreeReport:
        """Make a local folder equal to the guest's, as `sync_to` does, as safely as `get_tree`."""
        from . import tree

        return await tree.sync_from(
            await self._reach(),
            _bare(guest_path),
            Path(destination),
            policy=tree.Policy(
                max_bytes=tree.MAX_BYTES if max_bytes is None else max_bytes,
                max_files=tree.MAX_FILES if max_files is None else max_files,
                links=links,
                exclude=tree.Exclude(exclude),
            ),
            delete=delete,
            checksum=checksum,
            dry_run=dry_run,
            progress=progress,
        )

    async def glob(self, pattern: str | bytes) -> tuple[bytes, ...]:
        """Return the guest's paths that match a pattern of its shell, such as /var/log/*.log.

        They are the guest's words: do not use them as paths of this host.
        """
        from . import tree

        return await tree.Remote(await self._reach()).glob(os.fsencode(pattern))

    async def kind_of(self, guest_path: str | bytes) -> Literal["folder", "file", None]:
        """Tell what is at a path: a folder (or a link to one), anything else, or nothing."""
        from . import tree

        kind = await tree.Remote(await self._reach()).kind(os.fsencode(guest_path))
        return "folder" if kind == "d" else "file" if kind == "f" else None

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

    @contextlib.asynccontextmanager
    async def _terminal(
        self, command: Command, argv: tuple[bytes, ...], size: Size, plain: bool
    ) -> AsyncIterator[Terminal]:
        from hostctl_channels.terminal import NO_TERMINAL, TOOLS, open_terminal

        tools = (*TOOLS, NO_TERMINAL) if plain else TOOLS
        async with open_terminal(await self._reach(), command, argv, size, tools) as terminal:
            yield terminal


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _bare(guest_path: str | bytes) -> bytes:
    """Return the path of a folder without slashes at its end."""
    path = os.fsencode(guest_path)
    return path.rstrip(b"/") or path[:1]
