"""The parent of a private libvirtd: gives it a view of its own, reaps what it leaves, ends with us.

libvirt leaves each QEMU to process 1, and polls until it is gone. Where process 1 reaps late, as in
many containers, each end of a QEMU, also of those that only probe for features, costs 15 s. So this
process adopts and reaps them (prctl(2), PR_SET_CHILD_SUBREAPER).

Run as `python warden.py ROOT`, by root under `unshare --mount`; reads `start NAME ARGUMENT…` and
`kill NAME`, a line each, and answers each with a pid. When its standard input ends it kills all its
children.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

VIEWS = {
    "etc": "/etc/libvirt",
    "run": "/run",  # whole: /run/libvirt is only there after a libvirtd has run
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}


def main(root: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.geteuid() == 0:
        for name, path in VIEWS.items():
            subprocess.run(["mount", "--bind", str(root / name), path], check=True)
        hide_kvm(root / "no-kvm")
    signal.signal(signal.SIGCHLD, reap)
    pids: dict[str, int] = {}
    for line in sys.stdin:
        order, name, *argv = line.split()
        if order == "start":
            pids[name] = spawn(argv, root / f"{name}.log")
        else:
            os.kill(pids[name], signal.SIGKILL)
        sys.stdout.write(f"{pids[name]}\n")
        sys.stdout.flush()
    for pid in children():
        os.kill(pid, signal.SIGKILL)


def hide_kvm(file: Path) -> None:
    """Make /dev/kvm a file that QEMU's user cannot open.

    The tests emulate. And where the device can be opened but does not work, libvirt takes what it
    learnt of QEMU for outdated at each look, and learns it anew: 4 s each, six times a start.
    """
    if Path("/dev/kvm").exists():
        file.touch(mode=0o000)
        subprocess.run(["mount", "--bind", str(file), "/dev/kvm"], check=True)


def spawn(argv: list[str], log: Path) -> int:
    """Start a program; `reap`, not Popen, will collect it."""
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    no_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    actions = [no_input, to_log, (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)


def children() -> list[int]:
    me = os.getpid()
    return [int(word) for word in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]))
