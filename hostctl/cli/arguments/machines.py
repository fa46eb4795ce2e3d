"""Machines: made and adopted, tagged, listed, shown, watched."""

import argparse

from .. import units
from .options import add_connect, add_file, add_json, add_login, add_shape, add_timeout
from .selection import SEVERAL, add_allow_empty, add_name, add_names, add_new_name, add_words
from .values import MACHINE, complete, typed


def create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl create`."""
    add_new_name(parser)
    add_shape(parser)
    parser.add_argument(
        "--tag",
        metavar="TAG",
        action="append",
        default=[],
        help="a word that selects it later, as @TAG; repeatable: see hostctl tag",
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--backend",
        choices=("qemu", "libvirt", "virtualbox"),
        default="qemu",
        help="a QEMU of its own (default), a domain of libvirt, or a machine of VirtualBox",
    )
    add_connect(where)
    add_login(parser)
    parser.add_argument("--start", action="store_true", help="start it, and wait until it answers")
    add_timeout(parser, "with --start: how long to wait (default: 120s)", 120)
    add_json(parser)


def adopt(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl adopt`."""
    parser.add_argument(
        "domain",
        metavar="DOMAIN",
        help="a domain of libvirt or a machine of VirtualBox, by name or uuid",
    )
    parser.add_argument(
        "--backend",
        choices=("libvirt", "virtualbox"),
        default="libvirt",
        help="whose (default: libvirt)",
    )
    add_connect(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="what to call the machine (default: the domain's name)"
    )
    add_login(parser)
    add_json(parser)


def tag(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl tag`."""
    add_names(parser)
    for option, text in (("--add", "give them this tag"), ("--remove", "take it away")):
        parser.add_argument(
            option, metavar="TAG", action="append", default=[], help=f"{text}; repeatable"
        )
    add_json(parser)
    parser.epilog = """\
examples:
  hostctl tag web-1 web-2 --add ci --remove old
  hostctl tag web-1              print its tags
  hostctl exec @ci -- uptime     use one"""


def list_(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl list`."""
    add_words(parser, "*", "machines, patterns, @tags (default: all)")
    add_allow_empty(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    add_json(parser)


def show(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl show`."""
    add_names(parser)
    add_json(parser)


def stats(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl stats`."""
    add_words(parser, "*", f"{SEVERAL} (default: all that run)")
    add_allow_empty(parser)
    add_json(parser)


def events(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl events`."""
    action = parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="machines, or patterns such as 'web-*' (default: all)",
    )
    complete(action, MACHINE)
    beat = parser.add_mutually_exclusive_group()
    beat.add_argument(
        "--heartbeat",
        dest="heartbeat_s",
        metavar="DURATION",
        type=typed(units.parse_duration),
        default=10.0,
        help="how often each agent is pinged (default: 10s)",
    )
    beat.add_argument("--no-heartbeat", action="store_true", help="leave the guests alone")
    parser.add_argument("--alive", action="store_true", help="tell each answer to a ping, too")
    add_json(parser)


def screenshot(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl screenshot`."""
    add_name(parser)
    add_file(parser, "file", metavar="FILE", help="where to: a PNG, or - for standard output")
