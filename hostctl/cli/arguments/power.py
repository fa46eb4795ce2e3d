"""A machine's life: started, paused, stopped, deleted, and waited for."""

import argparse

from .options import add_json, add_timeout
from .selection import SEVERAL, add_fan_out, add_names
from .values import MACHINE, complete


def start(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl start`."""
    add_names(parser)
    parser.add_argument(
        "--no-wait", action="store_true", help="return as soon as it runs, before it answers"
    )
    add_timeout(parser, "how long to wait for the answer (default: 120s)", 120)
    add_json(parser)


def stop(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl stop`."""
    add_names(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-f", "--force", action="store_true", help="pull the plug now")
    how.add_argument(
        "--save",
        action="store_true",
        help="write memory to disk, for the next start to go on from (VirtualBox only)",
    )
    add_timeout(parser, "how long the guest may take before the plug is pulled (default: 30s)", 30)
    add_json(parser)


def pause(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pause`, and `resume`, which takes the same."""
    add_names(parser)
    add_json(parser)


def reset(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl reset`."""
    add_names(parser)
    parser.add_argument("--no-wait", action="store_true", help="return before it answers again")
    add_json(parser)


def delete(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl delete`."""
    add_names(parser)
    parser.add_argument("-f", "--force", action="store_true", help="also when it runs")
    parser.add_argument(
        "--undefine",
        action="store_true",
        help="of an adopted machine, which is only forgotten otherwise: remove it from its "
        "hypervisor; its disks stay",
    )
    add_json(parser)


def wait(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl wait`."""
    action = parser.add_argument(
        "names", metavar="NAME[/JOB]", nargs="+", help=f"{SEVERAL}; or jobs: NAME/JOB, '@ci/*'"
    )
    complete(action, MACHINE)
    add_fan_out(parser)
    parser.add_argument(
        "--for",
        dest="goal",
        choices=("ready", "running", "paused", "stopped"),
        default="ready",
        help="ready: its agent answers (default)",
    )
    add_timeout(parser, "how long to wait (default: 120s; for jobs: as long as they run)", None)
    add_json(parser)
    parser.epilog = """\
With jobs the exit status is that of the first that did not end with 0, as exec tells it."""
