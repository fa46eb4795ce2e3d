"""Files and folders that are copied into guests, or out of them."""

import argparse

from .. import units
from .options import Container, add_channel, add_file, add_json, add_steal
from .selection import add_fan_out
from .values import parse_count, parse_mode, typed


def cp(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl cp`."""
    add_file(
        parser,
        "sources",
        metavar="SOURCE",
        help="FILE, NAME:FILE, a pattern as NAME:/var/log/*.log, or - for standard input",
        nargs="+",
    )
    add_file(
        parser,
        "destination",
        metavar="DESTINATION",
        help="NAME:FILE, FILE, or - for standard output; a folder gets the source's name",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="copy folders, whole")
    parser.add_argument(
        "--verify", choices=("sha256",), help="compare digests made on both sides (slower)"
    )
    parser.add_argument(
        "--mode",
        metavar="MODE",
        type=parse_mode,
        help="permissions of the copy, octal, such as 0644",
    )
    parser.add_argument(
        "-p",
        "--preserve",
        action="store_true",
        help="keep permissions and modification time; folders always do",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what has come of a file when it breaks off, and go on there the next time",
    )
    folders = parser.add_argument_group("with -r")
    folders.add_argument(
        "--replace", action="store_true", help="put the folder in the place of one that is there"
    )
    folders.add_argument(
        "--partial",
        action="store_true",
        help="after a failure keep what has come, as DESTINATION.partial",
    )
    folders.add_argument("--owners", action="store_true", help="keep numeric owners and groups")
    _add_tree(folders)
    add_channel(parser)
    _add_progress(parser)
    add_steal(parser)
    add_json(parser)
    add_fan_out(parser)
    parser.epilog = """\
examples:
  hostctl cp job.tar web:/tmp/
  hostctl cp -r src web:/srv/
  hostctl cp 'web:/var/log/*.log' logs/
  hostctl cp --verify sha256 web:/var/log/messages .
  pg_dump db | hostctl cp - db:/root/dump.sql
  hostctl cp job.tar '@ci:/tmp/'               to every machine with that tag; read once
  hostctl cp 'web-*:/var/log/messages' logs/   to logs/NAME/messages

A local file with a colon in its name is written ./like:this."""


def sync(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl sync`."""
    add_file(parser, "source", metavar="SOURCE", help="a folder: FOLDER or NAME:FOLDER")
    add_file(
        parser,
        "destination",
        metavar="DESTINATION",
        help="the folder that shall be equal: NAME:FOLDER or FOLDER; made if it is missing",
    )
    parser.add_argument(
        "--delete", action="store_true", help="remove what is not in the source, but for --exclude"
    )
    parser.add_argument(
        "-c",
        "--checksum",
        action="store_true",
        help="compare files by SHA-256, not by size and time (slower)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="only print what would be sent and removed"
    )
    _add_tree(parser)
    add_channel(parser)
    _add_progress(parser)
    add_steal(parser)
    add_json(parser)
    add_fan_out(parser)
    parser.epilog = """\
examples:
  hostctl sync src web:/srv/src
  hostctl sync --delete --exclude '*.tmp' web:/srv/data backup/data

Unlike cp, sync takes both folders as they are named: nothing lands under the source's name."""


def _add_tree(parser: Container) -> None:
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out what has such a name, such as '*.o'; /NAME: only at the top; repeatable",
    )
    parser.add_argument(
        "--links",
        choices=("inside", "skip"),
        default="inside",
        help="from a guest: a symbolic link that leads out of the folder is an error (inside, the "
        "default), or left out (skip)",
    )
    parser.add_argument(
        "--max-bytes",
        metavar="SIZE",
        type=typed(units.parse_size),
        help="from a guest: take no more than this (default: 16G)",
    )
    parser.add_argument(
        "--max-files",
        metavar="N",
        type=parse_count,
        help="from a guest: take no more files and folders than this (default: 500000)",
    )


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="a bar on a terminal (auto, the default), or JSON lines on stderr",
    )
