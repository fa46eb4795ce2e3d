"""The host: its images, what it can do, its shells."""

import argparse
from typing import Final

from .options import add_json

SHELLS: Final = ("bash", "zsh", "fish")


def image_build(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl image build`."""
    parser.add_argument("image", metavar="IMAGE", help="a recipe's name, such as tiny")
    parser.add_argument(
        "-f", "--force", action="store_true", help="build again even if nothing changed"
    )
    add_json(parser)


def image_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl image list`."""
    add_json(parser)


def doctor(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl doctor`."""
    add_json(parser)


def completion(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl completion`."""
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")
    parser.epilog = """\
install:
  bash  hostctl completion bash > ~/.local/share/bash-completion/completions/hostctl
  zsh   hostctl completion zsh  > a folder of your $fpath, as _hostctl
  fish  hostctl completion fish > ~/.config/fish/completions/hostctl.fish"""
