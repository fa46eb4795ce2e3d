"""The ports of one machine, shared by tasks and processes: leases by file lock, no daemon.

A lock file holds the holder's pid while a lease lasts. A pid that is still there when the lock is
free tells that its holder was killed, or gave the port up in the middle of a request: whoever takes
it next cleans up. A restore of the guest leaves a mark in those that nobody holds, for their
workers are back at what they did then.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import ChannelClosed, PortHeld, PortsBusy
from .links.interface import Endpoint, Link

__all__ = [
    "CONTROL",
    "GUEST_AGENT",
    "GUEST_CONTROL",
    "PORTS",
    "PREFIX",
    "SERIAL",
    "STREAM",
    "WORK",
    "Lease",
    "PortPool",
    "mark_restored",
    "number",
    "suffix",
]

PREFIX: Final = "org.hostctl."
CONTROL: Final = (PREFIX + "0",)  # short requests only, so that a signal never waits behind a file
WORK: Final = tuple(f"{PREFIX}{n}" for n in range(1, 5))  # one request at a time each
STREAM: Final = tuple(
    f"{PREFIX}out.{n}" for n in range(8)
)  # raw stdout or stderr of a running command: two per worker
PORTS: Final = CONTROL + WORK + STREAM
SERIAL: Final = "serial.1"  # the guest's second serial line, ttyS1; the first is its console
GUEST_CONTROL: Final = "virtualbox.guestcontrol"  # no port: see vbox.control.Controlling
GUEST_AGENT: Final = "org.qemu.guest_agent.0"  # where qemu-ga listens unless told otherwise

_RESTORED: Final = b"restored\n"
_RETRY_S = (0.005, 0.1)  # first and longest wait between looks at the locks
_HANG_UP_S: Final = 0.01  # for QEMU to see that one has hung up, before the next connects


def suffix(name: str) -> str:
    """Return the part of a port's name that the wire and the socket files use."""
    # A socket's path has room for 107 bytes, and most of them are taken.
    return "qga" if name == GUEST_AGENT else name.removeprefix(PREFIX)


def number(name: str) -> str:
    """Return the last part of a stream port's name: what an exec calls it by."""
    return name.rpartition(".")[2]


def mark_restored(lock_dir: Path) -> None:
    """Note that the guest was put back to an earlier moment: its workers may be busy.

    Whoever holds a port finds that out from its pulse. The folder need not be there yet. A mark
    only saves time: a full disk must not end a restore half way.
    """
    with suppress(OSError, ChannelClosed):
        lock_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in WORK:
            if (taken := _try_lock(_lock_path(lock_dir, name))) is not None:
                _mark(*taken)


def _mark(fd: int, note: bytes) -> None:
    try:
        _write(fd, note or _RESTORED)
    finally:
        os.close(fd)


def _lock_path(lock_dir: Path, name: str) -> Path:
    return lock_dir / f"{suffix(name)}.lock"


def _try_lock(path: Path) -> tuple[int, bytes] | None:
    """Take a lock, if it is free; return it, and what its last holder left there."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as err:  # its folder goes when the machine stops
        raise ChannelClosed("the machine has no lines: it does not run") from err
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd, os.pread(fd, 32, 0)


def _write(fd: int, note: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, note, 0)


class Lease:
    """One port, held by us alone until `release`.

    `dirty` tells that its last holder ended in the middle of a request, `is_restored` that its
    worker was put back to an earlier moment since.
    """

    def __init__(self, name: str, link: Link, fd: int, note: bytes, endpoint: Endpoint) -> None:
        self.name = name
        self.link = link
        self.is_restored = note == _RESTORED
        self.dirty = bool(note) and not self.is_restored
        self._fd = fd
        self._endpoint = endpoint

    @property
    def is_held(self) -> bool:
        """False once released."""
        return self._fd >= 0

    async def reconnect(self, gap_s: float) -> None:
        """Hang up, leave the guest `gap_s` seconds to notice, connect again.

        Raises ChannelClosed if nobody listens.
        """
        self.link.close()
        await asyncio.sleep(gap_s)
        self.link = await self._endpoint.open()

    def release(self, *, clean: bool) -> None:
        """Hang up and let others have the port. Safe to call twice; only the first call counts."""
        if self._fd < 0:
            return
        self.link.close()
        if clean:
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1


class PortPool:
    """The ports of one machine.

    `endpoints` by full name, lock files in `lock_dir`, which must exist.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], lock_dir: Path) -> None:
        self._endpoints = dict(endpoints)
        self._lock_dir = lock_dir

    def has(self, names: Collection[str]) -> bool:
        """Tell whether the machine has any port of these."""
        return any(name in self._endpoints for name in names)

    async def lease(
        self, names: Collection[str], timeout_s: float, *, unless: Collection[str] = ()
    ) -> Lease:
        """Take the first free port of `names`, waiting for one if need be.

        Raises:
            PortsBusy: all are still held after `timeout_s`; the message names the holders.
            ChannelClosed: nobody is at the port's other end.
        """
        wanted = [name for name in names if name in self._endpoints and name not in unless]
        if not wanted:
            raise self._busy(wanted, 0)
        deadline = asyncio.get_running_loop().time() + timeout_s
        pause_s, longest_s = _RETRY_S
        held: PortHeld | None = None
        while True:
            for name in wanted:
                if (taken := _try_lock(_lock_path(self._lock_dir, name))) is not None:
                    try:
                        return await self._open(name, *taken)
                    except PortHeld as err:  # by somebody without locks: the next may be free
                        held = err
            if asyncio.get_running_loop().time() >= deadline:
                raise held or self._busy(wanted, timeout_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _open(self, name: str, fd: int, note: bytes) -> Lease:
        endpoint = self._endpoints[name]
        try:
            _write(fd, b"%d\n" % os.getpid())
            link = await endpoint.open()
        except BaseException:
            with suppress(OSError):
                _write(fd, note)
            os.close(fd)
            raise
        lease = Lease(name, link, fd, note, endpoint)
        if lease.dirty and name in PORTS:
            await self._hang_up_once(lease)
        return lease

    async def _hang_up_once(self, lease: Lease) -> None:
        """Hang up and connect again, on a port whose last holder left in the middle of output.

        QEMU may think ever since that nobody reads (7.2: a flush scheduled before the hang-up
        writes after it, fails, and throttles the port), and learns better at the next hang-up only.
        """
        try:
            await lease.reconnect(_HANG_UP_S)
        except BaseException:
            lease.release(clean=False)
            raise

    def _busy(self, wanted: Collection[str], timeout_s: float) -> PortsBusy:
        if not wanted:
            return PortsBusy(
                "no port is usable", hint="background commands may hold them: redirect their output"
            )
        holders = sorted({pid for name in wanted if (pid := self._holder(name))})
        who = ", ".join(holders) or "?"
        return PortsBusy(
            f"all {len(wanted)} ports stayed taken for {timeout_s:g} s by process {who}",
            hint="wait for those commands to end, or stop them",
        )

    def _holder(self, name: str) -> str:
        with suppress(OSError):
            return _lock_path(self._lock_dir, name).read_text().strip()
        return ""
