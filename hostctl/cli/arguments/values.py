"""What a word of a command line turns into, and how a shell completes it."""

import argparse
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

# What shtab puts into the completion scripts; completion.py defines the shell function.
MACHINE: Final = {
    "bash": "_hostctl_machines",
    "zsh": "_hostctl_machines_zsh",
    "fish": "(_hostctl_machines)",
}
TEMPLATE: Final = {
    "bash": "_hostctl_templates",
    "zsh": "_hostctl_templates_zsh",
    "fish": "(_hostctl_templates)",
}
FILE: Final = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "fish": "(__fish_complete_path (commandline -ct))",
}


def complete(action: argparse.Action, functions: dict[str, str]) -> None:
    """Tell shtab how to complete this argument; it looks for this attribute."""
    action.complete = functions  # type: ignore[attr-defined]  # shtab's convention


def typed(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse show the message of a ValueError: of its own accord it hides it."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def parse_count(text: str) -> int:
    """Parse a number that is 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a count; write 1 or more')
    return int(text)


def parse_line_count(text: str) -> int:
    """Parse a number of lines, which may be 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is no number of lines; write 0 or more')
    return int(text)


def parse_mode(text: str) -> int:
    """Parse permissions, which are written octal."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise argparse.ArgumentTypeError(
            f'"{text}" are no permissions; write them octal, like 0644'
        )
    return mode
