"""What each command takes: argparse declarations, a file for each family of commands.

`hostctl --help` and the completion scripts need them and nothing else, so nothing heavy may be
imported here (tests/cli/test_startup.py watches).
"""

from .channels import attach, caps, console, detach, forward
from .exec import exec_, forget, jobs, logs, run, shell, signal
from .files import cp, sync
from .guest_words import split_guest_words
from .host import SHELLS, completion, doctor, image_build, image_list
from .machines import adopt, create, events, list_, screenshot, show, stats, tag
from .options import CHANNELS
from .power import delete, pause, reset, start, stop, wait
from .snapshots import snapshot_list, snapshot_save, snapshot_tag
from .templates import (
    clone,
    pool_create,
    pool_list,
    pool_name,
    template_create,
    template_delete,
    template_list,
)

__all__ = [
    "CHANNELS",
    "SHELLS",
    "adopt",
    "attach",
    "caps",
    "clone",
    "completion",
    "console",
    "cp",
    "create",
    "delete",
    "detach",
    "doctor",
    "events",
    "exec_",
    "forget",
    "forward",
    "image_build",
    "image_list",
    "jobs",
    "list_",
    "logs",
    "pause",
    "pool_create",
    "pool_list",
    "pool_name",
    "reset",
    "run",
    "screenshot",
    "shell",
    "show",
    "signal",
    "snapshot_list",
    "snapshot_save",
    "snapshot_tag",
    "split_guest_words",
    "start",
    "stats",
    "stop",
    "sync",
    "tag",
    "template_create",
    "template_delete",
    "template_list",
    "wait",
]
