"""Templates, the clones made of them, and pools, where clones wait."""

import argparse

from .options import (
    add_clone_options,
    add_json,
    add_on_clone,
    add_overcommit,
    add_shape,
    add_timeout,
)
from .selection import add_new_name, add_template
from .values import MACHINE, TEMPLATE, complete, parse_count


def template_create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template create`: it takes what `create` takes, for QEMU."""
    add_new_name(parser)
    source = parser.add_argument(
        "--from",
        dest="source",
        metavar="MACHINE",
        help="keep the present moment of this machine, which goes on, instead of booting one",
    )
    complete(source, MACHINE)
    add_shape(parser)
    parser.add_argument(
        "--warm",
        metavar="LINE",
        action="append",
        default=[],
        help="run this shell line in it before its moment is kept; repeatable",
    )
    add_on_clone(parser, "a script that each clone's /bin/sh runs first; $1 is its name")
    add_timeout(parser, "how long to wait for its boot, and for each line (default: 120s)", 120)
    add_json(parser)
    parser.set_defaults(backend="qemu")


def template_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template list`."""
    add_json(parser)


def template_delete(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template delete`."""
    add_template(parser, "name", "one that no machine came of")


def clone(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl clone`."""
    source = parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a template; or a machine whose hypervisor can make a stopped one of its snapshots",
    )
    complete(source, TEMPLATE)
    parser.add_argument("names", metavar="NAME", nargs="+", help="what to call the clones")
    parser.add_argument(
        "--snapshot", metavar="TAG", help="of a machine: where they begin (default: the newest)"
    )
    parser.add_argument(
        "--count", metavar="N", type=parse_count, help="make so many of one NAME: NAME-1, NAME-2, …"
    )
    add_clone_options(parser)
    add_timeout(parser, "how long to wait for their answers (default: 60s)", 60)
    add_json(parser)


def pool_create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool create`."""
    add_template(parser, "template", "a template, or an image, of which one is made once")
    parser.add_argument(
        "--size", metavar="N", type=parse_count, required=True, help="how many clones shall wait"
    )
    add_overcommit(parser)
    add_json(parser)
    parser.epilog = """\
A waiting clone is warm and frozen: it takes memory, and no CPU. hostctl run takes one, and another
process makes the next. Of a pool that is there, this changes the size."""


def pool_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool list`."""
    add_json(parser)


def pool_name(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool delete`, and `fill`, which takes the same."""
    add_template(parser, "template", "one that has a pool")
    add_json(parser)
