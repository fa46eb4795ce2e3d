"""Snapshots of machines: saved, listed, restored, deleted."""

import argparse

from .options import add_json
from .selection import add_group, add_names


def snapshot_save(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot save`."""
    snapshot_tag(parser)
    parser.add_argument(
        "--quiesce",
        action="store_true",
        help="freeze the guest's file systems meanwhile, by its QEMU guest agent",
    )


def snapshot_tag(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot restore`, and `delete`, which takes the same."""
    add_group(parser)
    parser.add_argument("tag", metavar="TAG", help="the snapshot's name")
    add_json(parser)


def snapshot_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot list`."""
    add_names(parser)
    add_json(parser)
