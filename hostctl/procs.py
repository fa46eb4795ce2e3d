"""The only door to other programs: argv lists, never a shell; logged, timed, stderr kept.

Three ways through it: `run` waits for a short helper, `spawn_detached` starts what outlives us,
`spawn_piped` what we talk to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ToolFailed, ToolMissing

__all__ = ["Finished", "find_tool", "run", "running", "spawn_detached", "spawn_piped"]

logger = logging.getLogger(__name__)

PACKAGES: Mapping[str, str] = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
}
TEXT_LIMIT = 4000  # characters of a helper's stderr kept in an error


@dataclass(frozen=True, slots=True)
class Finished:
    """A helper that ended with status 0."""

    argv: tuple[str, ...]
    stdout: bytes
    stderr: bytes
    duration_s: float


def find_tool(name: str) -> str:
    """Return the path of program `name`.

    Raises:
        ToolMissing: it is not on PATH; the hint names Debian's package.
    """
    import shutil  # here, for it is slow to import

    path = shutil.which(name)
    if path is None:
        package = PACKAGES.get(name)
        raise ToolMissing(name, hint=f"apt-get install {package}" if package else None)
    return path


async def run(argv: Sequence[str], *, timeout_s: float) -> Finished:
    """Run a helper to its end.

    Raises:
        ToolMissing: there is no such program.
        ToolFailed: it ended with another status than 0, or was killed at the deadline.
    """
    started = time.monotonic()
    async with running(argv) as process:
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            raise ToolFailed(argv, None, f"no end after {timeout_s:g} s") from None
    duration_s = time.monotonic() - started
    logger.debug("ran %s: status %s, %.3f s", argv, process.returncode, duration_s)
    if process.returncode != 0:
        text = stderr.decode("utf-8", "replace")[-TEXT_LIMIT:]
        raise ToolFailed(argv, process.returncode, text)
    return Finished(tuple(argv), stdout, stderr, duration_s)


@contextlib.asynccontextmanager
async def running(argv: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a helper for as long as the body lasts; its whole process group is killed at the end."""
    find_tool(argv[0])
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # communicate, not wait: it also closes the pipes.
            await process.communicate()


def spawn_detached(
    argv: Sequence[str], stderr: Path, environ: Mapping[str, str] | None = None
) -> int:
    """Start a program that outlives us, in a session of its own, and return its pid.

    It has no stdin, no terminal and none of our descriptors: Python's are close-on-exec, and those
    that our own caller left us are closed, or a shell's pipe would stay open as long as it.
    posix_spawn rather than subprocess: no Popen object that would have to live as long as it.
    `environ` is added to our environment.
    """
    path = find_tool(argv[0])
    fresh = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(stderr), fresh, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
    ]
    around = {**os.environ, **(environ or {})}
    pid = os.posix_spawn(path, list(argv), around, file_actions=actions, setsid=True)
    logger.debug("spawned %s as process %d", argv, pid)
    return pid


async def spawn_piped(argv: Sequence[str]) -> asyncio.subprocess.Process:
    """Start a program that we talk to, in a session of its own: a Ctrl-C is ours, not its.

    Raises:
        ToolMissing: there is no such program.
    """
    find_tool(argv[0])
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    logger.debug("spawned %s as process %d", argv[0], process.pid)
    return process


def reap(pid: int) -> None:
    """Collect `pid` if it is a dead child of ours; without this it would stay a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _inherited() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own, closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                yield int(name)
