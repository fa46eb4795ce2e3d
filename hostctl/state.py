"""Where machines live on disk: the state and runtime directories, locks, atomic writes, leftovers.

Owns every path of a machine and the rule that a killed hostctl leaves nothing that the next run
cannot find and clean. What is inside run.json is the back end's affair.

Two directories. *State* survives a reboot of the host (specs, disks, logs); *runtime* does not
(sockets, port leases). Both are 0700. A machine appears and disappears by one `rename`, so it is
whole or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BackendError, Busy, ConfigError, MachineExists, MachineNotFound

__all__ = [
    "FilePulse",
    "Home",
    "MachineFiles",
    "cut_log",
    "last_lines",
    "locked",
    "previous",
    "put_aside",
    "read_json",
    "remove_tree",
    "tail",
    "write_atomic",
    "write_json",
]

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH = (
    107  # sockaddr_un.sun_path is 108 bytes on Linux, with the NUL (unix(7)); 104 on macOS
)
LONGEST_SOCKET = "serial.1.sock"
LOCK_POLL_S = 0.02
TEMPORARY = ".tmp-"
TAIL_BYTES = 64 * 1024  # of a log that the guest writes: enough for its last words, bounded


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The paths of one machine. Making one creates nothing."""

    name: str
    directory: Path
    runtime: Path

    @property
    def spec(self) -> Path:
        return self.directory / "machine.json"

    @property
    def run(self) -> Path:
        """What is known of the machine's process; absent when it has none."""
        return self.directory / "run.json"

    @property
    def pid(self) -> Path:
        """QEMU's own pidfile: removed when it ends in order, left when it is killed."""
        return self.directory / "qemu.pid"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def epoch(self) -> Path:
        return self.directory / "epoch"

    @property
    def suspended(self) -> Path:
        return self.directory / "suspended"

    @property
    def attached(self) -> Path:
        """What `attach` brought into the guest."""
        return self.directory / "attached.json"

    @property
    def login(self) -> Path:
        """Who logs in at the guest's serial line, for our owner's eyes only."""
        return self.directory / "login.toml"

    @property
    def answered(self) -> Path:
        """There once the guest's agent has answered: from then on silence is worth waiting out."""
        return self.directory / "answered"

    @property
    def channel(self) -> Path:
        """Which line into the guest answered last; see connect.py."""
        return self.directory / "channel"

    @property
    def tags(self) -> Path:
        """The tags that select it; absent if there is none."""
        return self.directory / "tags.json"

    @property
    def frozen(self) -> Path:
        """There while somebody holds the guest's file systems frozen, or was killed doing so."""
        return self.directory / "frozen"

    @property
    def quiesced(self) -> Path:
        """The tags of snapshots whose file systems were frozen; absent if there is none."""
        return self.directory / "quiesced.json"

    @property
    def unborn(self) -> Path:
        """There until a clone has taken over its template's moment."""
        return self.directory / "unborn"

    @property
    def newborn(self) -> Path:
        """Who makes the clone, until it is whole: one whose maker was killed is removed."""
        return self.directory / "newborn"

    @property
    def waiting(self) -> Path:
        """There as long as a clone waits in a pool, and is nobody's; see pool.py."""
        return self.directory / "waiting"

    @property
    def snapshots(self) -> Path:
        return self.directory / "snapshots.json"

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def disks(self) -> Path:
        return self.directory / "disks"

    @property
    def vmstate(self) -> Path:
        """The qcow2 file that holds the RAM of live snapshots."""
        return self.directory / "vmstate.qcow2"

    def socket(self, suffix: str) -> Path:
        return self.runtime / f"{suffix}.sock"

    def sweep(self) -> None:
        """Drop temporary files of killed writers. The caller holds the machine's lock."""
        for path in self.directory.glob(f".*{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def pulse(self) -> FilePulse:
        return FilePulse(self.epoch, self.suspended)


@dataclass(frozen=True, slots=True)
class Home:
    """The state and the runtime directory of one user."""

    state: Path
    runtime: Path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """Return the home that the environment names, or the one of the XDG rules."""
        home = Path(environ.get("HOME") or Path.home())
        state_root = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
        state = environ.get("HOSTCTL_STATE_DIR") or state_root / "hostctl"
        runtime = environ.get("HOSTCTL_RUNTIME_DIR") or _default_runtime(environ)
        return cls(Path(state).absolute(), Path(runtime).absolute())

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    def open(self) -> Home:
        """Create both directories, 0700, and refuse those that belong to somebody else."""
        _private_directory(self.state)
        _private_directory(self.runtime)
        self.machines.mkdir(mode=0o700, exist_ok=True)
        return self

    @property
    def templates(self) -> Path:
        """The templates' folders; see template.py."""
        return self.state / "templates"

    @property
    def pools(self) -> Path:
        """A folder for each pool, by its template's name; see pool.py."""
        return self.state / "pools"

    @property
    def journal(self) -> Path:
        """What was done to machines; see journal.py."""
        return self.state / "events.jsonl"

    def names(self) -> tuple[str, ...]:
        """Return the names of all machines, sorted; not of those that wait in a pool."""
        waiting = set(self.waiting())
        return tuple(name for name in self._names() if name not in waiting)

    def waiting(self) -> tuple[str, ...]:
        """Return the names of the machines that wait in a pool, sorted."""
        return tuple(name for name in self._names() if self.files(name).waiting.exists())

    def _names(self) -> list[str]:
        try:
            entries = os.listdir(self.machines)
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if not name.startswith("."))

    def files(self, name: str) -> MachineFiles:
        """Return the paths of machine `name`, whether it is there or not."""
        return MachineFiles(name, self.machines / name, self.runtime / name)

    def find(self, name: str) -> MachineFiles:
        """Return the paths of an existing machine.

        Raises:
            MachineNotFound: there is none; names that could leave the directory are none either.
        """
        if name.startswith(".") or "/" in name or not name:
            raise MachineNotFound(name)
        files = self.files(name)
        if not files.spec.exists():
            raise MachineNotFound(name)
        return files

    def check_sockets(self, name: str) -> None:
        """Raise `ConfigError` when a socket of machine `name` would not fit the kernel's limit."""
        path = self.files(name).socket(LONGEST_SOCKET.removesuffix(".sock"))
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH:
            raise ConfigError(
                f"socket path {path} has {length} bytes, the kernel allows {MAX_SOCKET_PATH}",
                hint="set HOSTCTL_RUNTIME_DIR to a shorter path, or shorten the name",
            )

    @contextlib.asynccontextmanager
    async def staging(self, name: str, timeout_s: float = 30) -> AsyncIterator[MachineFiles]:
        """Yield a private directory that becomes machine `name` when the body succeeds.

        Raises:
            MachineExists: there is one already; it is not touched.
        """
        self.check_sockets(name)
        async with locked(
            self.state / "lock", f"state directory {self.state}", "create", timeout_s
        ):
            self.sweep()
            final = self.files(name)
            if final.directory.exists():
                raise MachineExists(name)
            new = self.machines / f".new-{_random()}"
            new.mkdir(mode=0o700)
            try:
                yield MachineFiles(name, new, final.runtime)
                _sync_directory(new)
                new.rename(final.directory)
                _sync_directory(self.machines)
            finally:
                remove_tree(new)

    async def remove(self, files: MachineFiles, timeout_s: float = 30) -> None:
        """Remove a machine that has no process: gone by one rename, then freed."""
        async with locked(
            self.state / "lock", f"state directory {self.state}", "delete", timeout_s
        ):
            gone = self.machines / f".gone-{_random()}"
            with contextlib.suppress(FileNotFoundError):
                files.directory.rename(gone)
            remove_tree(files.runtime)
            self.sweep()

    def sweep(self) -> None:
        """Drop half-made and half-removed machines. The caller holds the state directory's lock."""
        for entry in os.listdir(self.machines):
            if entry.startswith((".new-", ".gone-")):
                logger.info("removing leftover %s", self.machines / entry)
                remove_tree(self.machines / entry)


@dataclass(frozen=True, slots=True)
class FilePulse:
    """A machine's epoch and suspension, read from two small files at each call."""

    epoch_file: Path
    suspended_file: Path

    def epoch(self) -> int:
        """Return a number that changes whenever the guest's timeline is cut."""
        # By hand, for it is asked several times per command: 4 us, where read_bytes takes 20.
        try:
            fd = os.open(self.epoch_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return int(os.read(fd, 32) or b"0")
        except ValueError:
            return 0
        finally:
            os.close(fd)

    def suspended(self) -> bool:
        """Return whether hostctl paused the machine."""
        return self.suspended_file.exists()

    def cut(self) -> None:
        """Begin a new epoch. It only grows, also for a machine made anew under an old name."""
        epoch = max(self.epoch() + 1, time.time_ns())
        # Not synced: when the host dies, so do the machine and everyone who remembers an epoch.
        write_atomic(self.epoch_file, str(epoch).encode(), durable=False)

    def set_suspended(self, suspended: bool) -> None:
        if suspended:
            self.suspended_file.touch(mode=0o600)
        else:
            self.suspended_file.unlink(missing_ok=True)


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


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: one sees the old content or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}{_random()}")
    try:
        with open(temporary, "xb", opener=_private) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path` by `data` as JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None when there is no such file.

    Raises:
        BackendError: the file is not ours, or damaged.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
    except ValueError as err:
        raise BackendError(f"{path} is damaged: {err}", hint=f"remove {path.parent}") from err
    if not isinstance(data, dict):
        raise BackendError(f"{path} is damaged: not an object", hint=f"remove {path.parent}")
    return data


def remove_tree(path: Path) -> None:
    """Remove a directory with all it holds; what cannot be removed stays, for the next sweep."""
    import shutil  # here, for it is slow to import and seldom used

    shutil.rmtree(path, ignore_errors=True)


def put_aside(log: Path) -> None:
    """Begin a log anew; the one before is kept as `NAME.1`."""
    with contextlib.suppress(FileNotFoundError):
        log.rename(previous(log))


def cut_log(log: Path, limit_bytes: int) -> None:
    """Keep a log that others append to below a size: its end becomes `NAME.1`, it begins anew."""
    with contextlib.suppress(FileNotFoundError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size > limit_bytes:
            file.seek(max(0, size - TAIL_BYTES))
            previous(log).write_bytes(file.read(TAIL_BYTES))
            file.truncate(0)


def previous(log: Path) -> Path:
    """Return where the log before this one is kept."""
    return log.with_name(f"{log.name}.1")


def tail(path: Path, lines: int) -> str:
    """Return the last `lines` lines of a log, made safe to print; '' when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return last_lines(file.read(TAIL_BYTES), lines)
    except FileNotFoundError:
        return ""


def last_lines(said: bytes, lines: int) -> str:
    """Return the last `lines` lines of what a guest said, made safe to print, without empty ones.

    An escape sequence must not reach the terminal of whoever reads an error.
    """
    text = said[-TAIL_BYTES:].decode("utf-8", "replace")
    clean = ("".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines())
    return "\n".join([line.rstrip() for line in clean if line.strip()][-lines:])


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


def _default_runtime(environ: Mapping[str, str]) -> Path:
    if root := environ.get("XDG_RUNTIME_DIR"):
        return Path(root) / "hostctl"
    login = Path(f"/run/user/{os.getuid()}")
    if os.access(login, os.W_OK):
        return login / "hostctl"
    return Path(environ.get("TMPDIR") or "/tmp") / f"hostctl-{os.getuid()}"


def _private_directory(path: Path) -> None:
    """Make `path`, 0700. One that is there must be ours and private: no rights are changed.

    In a shared /tmp it could have been planted; and it could be /tmp itself.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a directory of user {os.getuid()}",
            hint="set HOSTCTL_RUNTIME_DIR and HOSTCTL_STATE_DIR to directories of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"{path} is open to other users", hint=f"chmod 700 {path}, or name another"
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _random() -> str:
    return os.urandom(4).hex()


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
