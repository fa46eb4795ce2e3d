"""Words that name machines, templates and jobs; and what matters when they mean several."""

import argparse
from typing import Final

from .options import Container
from .values import MACHINE, TEMPLATE, complete, parse_count

SEVERAL: Final = "the machine; or several: names, patterns like 'web-[0-9]', tags like @ci"


def add_name(parser: argparse.ArgumentParser) -> None:
    """Declare the one machine a line is about."""
    action = parser.add_argument("name", metavar="NAME", help="the machine")
    complete(action, MACHINE)


def add_group(parser: argparse.ArgumentParser) -> None:
    """Declare one word that may mean several machines, for lines that have further words."""
    text = "the machine; or several in one word: web,db, 'web-[0-9]', @ci"
    action = parser.add_argument("name", metavar="NAME", help=text)
    complete(action, MACHINE)
    add_fan_out(parser)


def add_names(parser: argparse.ArgumentParser) -> None:
    """Declare machines, one or more words."""
    add_words(parser, "+", SEVERAL)
    add_fan_out(parser)


def add_words(parser: argparse.ArgumentParser, nargs: str, text: str) -> None:
    """Declare words that name machines; `nargs` says how many, as argparse writes it."""
    action = parser.add_argument("names", metavar="NAME", nargs=nargs, help=text)
    complete(action, MACHINE)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Declare jobs, one or more words."""
    parser.add_argument(
        "jobs",
        metavar="NAME/JOB",
        nargs="+",
        help="a machine and the id of a job in it; both may be patterns: 'web-*/*', '@ci/*'",
    )
    add_fan_out(parser)


def add_new_name(parser: argparse.ArgumentParser) -> None:
    """Declare the name of what is made."""
    parser.add_argument(
        "name", metavar="NAME", help="what to call it: letters, digits, dots, dashes"
    )


def add_template(parser: argparse.ArgumentParser, dest: str, text: str) -> None:
    """Declare the one template a line is about."""
    complete(parser.add_argument(dest, metavar="TEMPLATE", help=text), TEMPLATE)


def add_fan_out(parser: argparse.ArgumentParser) -> None:
    """Declare what only matters with several machines."""
    group = parser.add_argument_group("with several machines")
    group.add_argument(
        "--parallel", metavar="N", type=parse_count, help="how many at once (default: 16)"
    )
    end = group.add_mutually_exclusive_group()
    end.add_argument(
        "--fail-fast", action="store_true", help="the first that fails ends the others"
    )
    end.add_argument(
        "--keep-going",
        dest="fail_fast",
        action="store_false",
        help="one that fails does not hold up the others (default)",
    )
    add_allow_empty(group)


def add_allow_empty(parser: Container) -> None:
    """Declare `--allow-empty`."""
    parser.add_argument(
        "--allow-empty", action="store_true", help="a pattern or @tag without a match is no error"
    )
