"""A VirtualBox of the tests' own: the real one, in a folder, without its kernel driver.

`lab/` says how it is made and why it runs; `make virtualbox-lab` makes it ahead of time. The host's
own VirtualBox, if there is one, is never touched: the lab has another root, another home and other
sockets. Paths below the temporary folder, the lab's cache and the project are the same inside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from hostctl.backends.virtualbox.place import Place

from . import keeper

__all__ = [
    "BOOT_MARKS",
    "CACHE",
    "GROUP",
    "GUEST_MARKS",
    "MANAGE",
    "MISSING",
    "PASSWORD",
    "PYTHON",
    "Lab",
    "is_possible",
]

PROJECT: Final = Path(__file__).parents[2]
CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hostctl/tests/virtualbox"
)
MANAGE: Final = "/usr/lib/virtualbox/VBoxManage"  # /usr/bin's is a wrapper that asks for the driver
PYTHON: Final = "/usr/bin/python3"
PASSWORD: Final = "secret"  # of root and user, in the lab's guest
BUILD_S: Final = 900  # a kernel on two busy cores, and a mirror far away
START_S: Final = 30
RUN_S: Final = 60
MISSING: Final = (
    "needs root (it mounts and changes its root): run as root `make virtualbox-lab`, which "
    "installs debootstrap, xorriso, isolinux, syslinux-common, cpio, perl, gcc, flex, bison, bc, "
    "libelf-dev, libssl-dev, lz4, xz-utils"
)
GROUP: Final = "virtualbox"
# Two workers have all of its tests, each in a lab of its own: those with a guest that takes long to
# boot, and those with boot sectors. A machine keeps one core busy.
GUEST_MARKS: Final = (
    pytest.mark.needs("virtualbox-lab"),
    pytest.mark.xdist_group(f"{GROUP}/guest"),
)
BOOT_MARKS: Final = (
    pytest.mark.needs("virtualbox-lab"),
    pytest.mark.xdist_group(f"{GROUP}/boot"),
)
_TOOLS: Final = ("debootstrap", "xorriso", "cpio", "perl", "gcc", "flex", "bison", "bc", "lz4")


def is_possible() -> bool:
    """Tell whether the lab can be made and run here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return os.geteuid() == 0 and all(shutil.which(tool, path=path) for tool in _TOOLS)


class Lab:
    """VirtualBox in namespaces of its own; a context manager, whose end ends all that ran in it.

    `prefix` are the words before any command that is to run in the lab.
    """

    def __init__(self) -> None:
        words = _build()
        self.root, self.guest_iso, self.waiting_iso = map(Path, words)
        self.prefix: tuple[str, ...] = ()

    def __enter__(self) -> Lab:
        # Not tmp_path: its long name would not leave room for the sockets' paths.
        self._folder = tempfile.TemporaryDirectory(prefix="vb-")
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        for name in ("home", "config"):
            (self.folder / name).mkdir()
        paths = (tempfile.gettempdir(), str(CACHE), str(PROJECT))
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        self._keeper = subprocess.Popen(
            [*unshare, sys.executable, keeper.__file__, str(self.root), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            self.__exit__()
            raise RuntimeError("the lab's namespaces could not be made")
        self.prefix = self._words()
        self.manage("setproperty", "machinefolder", str(self.folder / "machines"))
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._keeper.wait(START_S)
        finally:
            self._keeper.kill()  # and --kill-child kills the rest
            self._folder.cleanup()
            sockets = Path(tempfile.gettempdir(), f".vbox-{self.folder.name}-ipc")
            shutil.rmtree(sockets, ignore_errors=True)

    @property
    def place(self) -> Place:
        """Where hostctl finds this VirtualBox."""
        return Place(self.prefix, python=PYTHON, manage=MANAGE)

    @property
    def settings(self) -> Mapping[str, str]:
        """The same, as hostctl reads it from its environment."""
        return {
            "HOSTCTL_VBOX_PREFIX": shlex.join(self.prefix),
            "HOSTCTL_VBOX_PYTHON": PYTHON,
            "HOSTCTL_VBOX_MANAGE": MANAGE,
        }

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that keeps this lab's VirtualBox apart from all others."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder / "home"),
            "VBOX_USER_HOME": str(self.folder / "config"),
            "VBOX_IPC_SOCKETID": self.folder.name,
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *argv: str, timeout_s: float = RUN_S, check: bool = True) -> str:
        """Run a program in the lab; return what it prints, its errors too."""
        done = subprocess.run(
            [*self.prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}: {done.stdout[-1000:]}")
        return done.stdout

    def manage(self, *words: str, timeout_s: float = RUN_S) -> str:
        """Run VBoxManage; return what it prints."""
        return self.run(MANAGE, *words, timeout_s=timeout_s)

    def pids(self, program: str, word: str = "") -> list[int]:
        """Return the processes of the lab that run a program of that name, by the host's numbers.

        With `word`, those whose command line has it.
        """
        space = os.readlink(f"/proc/{self._first()}/ns/pid")
        return [pid for pid in _processes(program, word) if _namespace(pid) == space]

    def _words(self) -> tuple[str, ...]:
        enter = ("nsenter", "--target", str(self._first()), "--mount", "--pid")
        pairs = (f"{key}={value}" for key, value in self.environ.items())
        return (*enter, "chroot", str(self.root), "env", "-i", *pairs)

    def _first(self) -> int:
        """Return the keeper's pid as the host knows it."""
        pid = self._keeper.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _build() -> list[str]:
    """Make what is missing of the lab; return the paths of its parts."""
    done = subprocess.run(
        [Path(__file__).parent / "lab/build", CACHE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=BUILD_S,
        env=os.environ | {"PYTHON": sys.executable},
    )
    return done.stdout.split("\n")[-4:-1]


def _processes(program: str, word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it has just ended
        if Path(words[0]).name == program and (not word or word in words):
            found.append(int(entry.name))
    return found


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
