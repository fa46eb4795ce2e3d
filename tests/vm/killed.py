"""Run one hostctl command line, and kill it before its Nth change of the world: nothing mocked.

    python -m tests.vm.killed N WORD...     ended by SIGKILL; with N=0 tells each change, on stderr

Python's audit events tell what is about to happen: files made, renamed and removed, programs
started, sockets reached. So a walk over all N kills at every step that can leave something behind.
"""

import os
import signal
import sys
from collections.abc import Callable

from hostctl.cli.main import main

CHANGES = frozenset(
    {
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "shutil.copyfile",
        "shutil.rmtree",
        "socket.bind",
        "socket.connect",
        "subprocess.Popen",
    }
)
WRITES = os.O_WRONLY | os.O_RDWR


def watcher(limit: int, home: str) -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook that counts changes in `home`, and kills us at one."""
    count, reached = 0, set[str]()

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        is_write = event == "open" and isinstance(args[2], int) and bool(args[2] & WRITES)
        if not (event in CHANGES or (is_write and str(args[0]).startswith(home))):
            return
        if event == "socket.connect":  # tried until somebody listens: one step
            if str(args[1]) in reached:
                return
            reached.add(str(args[1]))
        count += 1
        if not limit:
            os.write(2, f"{count} {event} {args[:2]}\n".encode())
        elif count == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


if __name__ == "__main__":
    sys.addaudithook(watcher(int(sys.argv[1]), os.environ["HOSTCTL_STATE_DIR"]))
    sys.exit(main(sys.argv[2:]))
