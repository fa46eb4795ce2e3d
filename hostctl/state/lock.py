"""Lock files: who changes a machine, or the state directory, and who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

from ..errors import Busy

__all__ = ["locked"]

LOCK_POLL_S = 0.02


@contextlib.asynccontextmanager
async def locked(path: Path, what: str, doing: str, timeout_s: float) -> AsyncIterator[None]:
    """Hold the lock file `path`, waiting up to `timeout_s` for it.

    The kernel frees a lock when its holder dies, so there are no stale ones; the pid in the file is
    for the message only.

    Raises:
        Busy: someone else held it all the time.
        FileNotFoundError: the directory of `path` is gone.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        fd = _try_lock(path)
        if fd is not None:
            break
        if loop.time() >= deadline:
            raise Busy(what, *_holder(path))
        await asyncio.sleep(LOCK_POLL_S)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {doing}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever deletes a machine holds its lock: what we waited for may be a file without a name.
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _holder(path: Path) -> tuple[int | None, str | None]:
    try:
        pid, _, doing = path.read_text().strip().partition(" ")
        return int(pid), doing or None
    except (OSError, ValueError):
        return None, None
