"""Ways into a guest: the agent brought there, the console, connections carried through."""

import argparse

from .options import add_channel, add_json, add_login, add_steal
from .selection import add_name, add_names
from .values import MACHINE, complete, parse_count, parse_line_count


def attach(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl attach`."""
    place = parser.add_argument(
        "place",
        metavar="TARGET",
        help="a machine; or with --connect a domain of libvirt; or the QMP socket of a QEMU that "
        "somebody else started; or a serial line: a tty, a Unix socket, a URL like socket://HOST:PORT",
    )
    complete(place, MACHINE)
    parser.add_argument("--name", metavar="NAME", help="what to call a machine that is new here")
    parser.add_argument("--connect", metavar="URI", help="the libvirt that has the domain TARGET")
    parser.add_argument(
        "--line",
        metavar="PORT=PLACE",
        action="append",
        default=[],
        help="with a QMP socket: where one of its ports is reached, such as "
        "org.qemu.guest_agent.0=/run/qga.sock or serial.1=/dev/pts/3; repeatable",
    )
    parser.add_argument(
        "--baud",
        metavar="N",
        type=parse_count,
        help="speed of a serial line that is a real tty (default: 115200)",
    )
    add_login(parser)
    parser.add_argument(
        "--persist", action="store_true", help="install the agent as a service of the guest"
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    add_json(parser)


def detach(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl detach`."""
    add_names(parser)
    add_json(parser)


def caps(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl caps`."""
    add_names(parser)
    add_json(parser)


def console(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl console`."""
    add_name(parser)
    parser.add_argument(
        "--log", action="store_true", help="print what the console said so far, and return"
    )
    parser.add_argument(
        "--history",
        metavar="LINES",
        type=parse_line_count,
        default=24,
        help="how much of that to show first (default: 24)",
    )
    add_steal(parser)


def forward(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl forward`."""
    add_name(parser)
    parser.add_argument(
        "forwards",
        metavar="LOCAL:GUEST",
        nargs="+",
        help="LOCAL: a port of this host's loopback, 0 for any free one, or the path of a new "
        "socket; GUEST: a port of the guest's loopback, HOST:PORT as it knows it, or a /path",
    )
    parser.add_argument(
        "--max-connections",
        metavar="N",
        type=parse_count,
        default=3,
        help="carried at once by each; of a machine's ports there are four pairs (default: 3)",
    )
    add_channel(parser)
    add_steal(parser)
    parser.epilog = """\
examples:
  hostctl forward web 8080:80
  hostctl forward web 0:/run/app.sock ./debug.sock:9229"""
