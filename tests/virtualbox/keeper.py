"""The first process of the lab's namespaces: mounts, reaps, and ends all when its input ends.

Run as `unshare --mount --pid --fork --kill-child python keeper.py ROOT PATH…`. It makes each PATH
visible at the same place below ROOT, then says so by a line. Because it is process 1 of a pid
namespace, the kernel kills whatever was started in there when it ends, and all mounts go with the
last of them: nothing of a lab survives its tests, not even when these are killed.
"""

import os
import signal
import subprocess
import sys


def main(root: str, paths: list[str]) -> None:
    for path in paths:
        os.makedirs(root + path, exist_ok=True)
    mount("--bind", root, root)
    mount("-o", "remount,bind,ro", root)  # it is everybody's
    mount("-t", "proc", "proc", f"{root}/proc")
    for path in ("/sys", "/dev"):
        mount("--rbind", path, root + path)
    for path in paths:
        mount("--bind", path, root + path)
    signal.signal(signal.SIGCHLD, reap)
    os.write(1, b"ready\n")
    sys.stdin.read()


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
