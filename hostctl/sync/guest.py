"""What the synchronous Machine does inside a guest: commands, jobs, files, terminals, forwards."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Literal

from ..guest import MAX_CONNECTIONS, MAX_READ
from .job import Job
from .loop import LoopThread
from .process import Process, Terminal

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer, FileInfo, Result
    from hostctl_channels.interface import Progress as ByteProgress

    from ..forward import Forward, Trouble
    from ..guest import Env, LocalPath
    from ..guest import Guest as AsyncGuest
    from ..job import JobStatus
    from ..tree import TreeProgress, TreeReport

__all__ = ["Guest"]


class Guest:
    """What can be done inside a machine that runs; the machine sets what this declares."""

    _loop: LoopThread
    _async: AsyncGuest

    def exec(
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
        return self._loop.call(
            self._async.exec(
                *argv,
                env=env,
                cwd=cwd,
                user=user,
                input=input,
                timeout_s=timeout_s,
                check=check,
                usage=usage,
            )
        )

    def shell(
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
        return self._loop.call(
            self._async.shell(
                line,
                env=env,
                cwd=cwd,
                user=user,
                input=input,
                timeout_s=timeout_s,
                check=check,
                usage=usage,
            )
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
    ) -> AbstractContextManager[Process]:
        context = self._async.process(
            *argv, stdin=stdin, env=env, cwd=cwd, user=user, timeout_s=timeout_s, usage=usage
        )
        return self._loop.held(context, lambda process: Process(self._loop, process))

    def spawn(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> Job:
        job = self._async.spawn(
            *argv,
            env=env,
            cwd=cwd,
            user=user,
            input=input,
            timeout_s=timeout_s,
            keep_bytes=keep_bytes,
        )
        return Job(self._loop, self._loop.call(job))

    def job(self, id: str) -> Job:
        return Job(self._loop, self._async.job(id))

    def jobs(self) -> tuple[JobStatus, ...]:
        return self._loop.call(self._async.jobs())

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
    ) -> AbstractContextManager[Terminal]:
        context = self._async.terminal(
            *argv,
            rows=rows,
            columns=columns,
            env=env,
            cwd=cwd,
            user=user,
            timeout_s=timeout_s,
            plain=plain,
        )
        return self._loop.held(context, lambda terminal: Terminal(self._loop, terminal))

    def forward(
        self,
        local: int | LocalPath,
        guest: int | str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        trouble: Trouble | None = None,
    ) -> AbstractContextManager[Forward]:
        context = self._async.forward(
            local, guest, max_connections=max_connections, trouble=trouble
        )
        return self._loop.held(context, lambda forward: forward)

    def put(
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
        return self._loop.call(
            self._async.put(
                source,
                guest_path,
                mode=mode,
                mtime_s=mtime_s,
                owner=owner,
                verify=verify,
                resume=resume,
                progress=progress,
            )
        )

    def get(
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
        return self._loop.call(
            self._async.get(
                guest_path,
                destination,
                stat=stat,
                verify=verify,
                max_bytes=max_bytes,
                resume=resume,
                progress=progress,
            )
        )

    def put_tree(
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
        return self._loop.call(
            self._async.put_tree(
                source,
                guest_path,
                exclude=exclude,
                replace=replace,
                partial=partial,
                owners=owners,
                special_bits=special_bits,
                progress=progress,
            )
        )

    def get_tree(
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
        return self._loop.call(
            self._async.get_tree(
                guest_path,
                destination,
                exclude=exclude,
                replace=replace,
                partial=partial,
                links=links,
                owners=owners,
                special_bits=special_bits,
                max_bytes=max_bytes,
                max_files=max_files,
                progress=progress,
            )
        )

    def sync_to(
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
        return self._loop.call(
            self._async.sync_to(
                source,
                guest_path,
                exclude=exclude,
                delete=delete,
                checksum=checksum,
                dry_run=dry_run,
                progress=progress,
            )
        )

    def sync_from(
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
        return self._loop.call(
            self._async.sync_from(
                guest_path,
                destination,
                exclude=exclude,
                delete=delete,
                checksum=checksum,
                dry_run=dry_run,
                links=links,
                max_bytes=max_bytes,
                max_files=max_files,
                progress=progress,
            )
        )

    def glob(self, pattern: str | bytes) -> tuple[bytes, ...]:
        return self._loop.call(self._async.glob(pattern))

    def kind_of(self, guest_path: str | bytes) -> Literal["folder", "file", None]:
        return self._loop.call(self._async.kind_of(guest_path))

    def read(self, guest_path: str | bytes, max_bytes: int = MAX_READ) -> bytes:
        return self._loop.call(self._async.read(guest_path, max_bytes))

    def ping(self) -> float:
        return self._loop.call(self._async.ping())
