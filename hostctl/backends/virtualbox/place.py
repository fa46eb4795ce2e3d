"""Which VirtualBox: by what words its programs are run, and in which Python its API lives.

Values only. Nothing here needs VirtualBox.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """One VirtualBox of this host.

    `prefix` comes before every program of it: `sudo -u vbox -H`, for machines of another user, or
    `chroot DIR env HOME=/root`. Paths must mean the same behind it. `python` is the interpreter
    that has `vboxapi` (empty: it is looked for), `pyvbox` where it finds pyvbox when it has none of
    its own, `manage` the program VBoxManage (empty: it is looked for).
    """

    prefix: tuple[str, ...] = ()
    python: str = ""
    pyvbox: str = ""
    manage: str = ""

    @classmethod
    def default(cls, connect: str | None = None, environ: Mapping[str, str] = os.environ) -> Place:
        """Return the place that `connect`, a prefix, or else the environment names."""
        prefix = environ.get("HOSTCTL_VBOX_PREFIX", "") if connect is None else connect
        return cls(
            tuple(shlex.split(prefix)),
            environ.get("HOSTCTL_VBOX_PYTHON", ""),
            environ.get("HOSTCTL_VBOX_PYVBOX", ""),
            environ.get("HOSTCTL_VBOX_MANAGE", ""),
        )

    @property
    def pythons(self) -> tuple[str, ...]:
        """The interpreters to try, the likeliest first."""
        if self.python:
            return (self.python,)
        if os.name == "nt":
            return ("python", sys.executable)
        # Distributions install vboxapi for their own; a virtual environment may be first on PATH.
        return tuple(dict.fromkeys(("/usr/bin/python3", "python3", sys.executable)))

    @property
    def pyvbox_path(self) -> str:
        """Where to find pyvbox: as told, or beside hostctl itself; '' if nowhere."""
        from importlib.util import find_spec

        if self.pyvbox:
            return self.pyvbox
        found = find_spec("virtualbox")
        return str(Path(found.origin).parent.parent) if found and found.origin else ""

    def __str__(self) -> str:
        return f"VirtualBox behind {shlex.join(self.prefix)!r}" if self.prefix else "VirtualBox"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for machine.json."""
        return {
            "prefix": list(self.prefix),
            "python": self.python,
            "pyvbox": self.pyvbox,
            "manage": self.manage,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Place:
        """Rebuild a place from `to_json`'s values."""
        return cls(tuple(data["prefix"]), data["python"], data["pyvbox"], data["manage"])
