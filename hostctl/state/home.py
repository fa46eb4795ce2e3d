"""The home of one user: a state and a runtime directory, and the machines in them."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, MachineExists, MachineNotFound
from .atomic import random_suffix, remove_tree, sync_directory
from .lock import locked
from .machine_files import MachineFiles

__all__ = ["MAX_SOCKET_PATH", "Home"]

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH = (
    107  # sockaddr_un.sun_path is 108 bytes on Linux, with the NUL (unix(7)); 104 on macOS
)
LONGEST_SOCKET = "serial.1.sock"


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
            new = self.machines / f".new-{random_suffix()}"
            new.mkdir(mode=0o700)
            try:
                yield MachineFiles(name, new, final.runtime)
                sync_directory(new)
                new.rename(final.directory)
                sync_directory(self.machines)
            finally:
                remove_tree(new)

    async def remove(self, files: MachineFiles, timeout_s: float = 30) -> None:
        """Remove a machine that has no process: gone by one rename, then freed."""
        async with locked(
            self.state / "lock", f"state directory {self.state}", "delete", timeout_s
        ):
            gone = self.machines / f".gone-{random_suffix()}"
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
