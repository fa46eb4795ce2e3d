"""Where machines live on disk: the state and runtime directories, locks, atomic writes, leftovers.

Owns every path of a machine and the rule that a killed hostctl leaves nothing that the next run
cannot find and clean. What is inside run.json is the back end's affair.

Two directories. *State* survives a reboot of the host (specs, disks, logs); *runtime* does not
(sockets, port leases). Both are 0700. A machine appears and disappears by one `rename`, so it is
whole or not there.
"""

from .atomic import read_json, remove_tree, write_atomic, write_json
from .home import MAX_SOCKET_PATH, Home
from .lock import locked
from .log import cut_log, last_lines, previous, put_aside, tail
from .machine_files import FilePulse, MachineFiles

__all__ = [
    "MAX_SOCKET_PATH",
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
