"""Who logs in to a guest: `--login FILE`, or `--user USER`, whose password is asked for."""

import argparse
import json
import tempfile
from pathlib import Path

from hostctl.machine import Machine

__all__ = ["keep_login"]


def keep_login(machine: Machine, args: argparse.Namespace) -> None:
    """Keep with the machine what the command line says, if it says anything."""
    if args.login:
        machine.set_login(Path(args.login))
    elif args.user:
        _ask(machine, args.user)


def _ask(machine: Machine, user: str) -> None:
    from hostctl_channels.login import Login

    login = Login.ask(user)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:  # 0600
        # A JSON string is a TOML string too.
        file.write(f"user = {json.dumps(login.user)}\npassword = {json.dumps(login.password)}\n")
        file.flush()
        machine.set_login(Path(file.name))
