"""What a machine comes from other than a boot: a template; and a RAM file that becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RAM", "STATE", "Moment", "Ram"]

RAM, STATE, PREPARED = "ram", "state", "prepared"  # files of a template's folder


@dataclass(frozen=True, slots=True)
class Ram:
    """A file that is a machine's RAM; `is_shared`: what the machine writes is kept in it."""

    path: Path
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """The back end's options in machine.json, read."""

    template: Path | None = None
    kept_ram: Path | None = None

    @classmethod
    def from_json(cls, options: Mapping[str, Any] | None) -> Moment:
        """Read what `options` says; most machines have none."""
        found = options or {}
        return cls(_path(found.get("template")), _path(found.get("ram")))

    @property
    def prepared(self) -> Path | None:
        """The folder with disks as a clone begins with them."""
        return None if self.template is None else self.template / PREPARED

    @property
    def state(self) -> Path | None:
        """The state of devices."""
        return None if self.template is None else self.template / STATE

    def ram(self, *, is_birth: bool) -> Ram | None:
        """Return the file that is the RAM of a start, or None for QEMU's own."""
        if self.kept_ram is not None:
            return Ram(self.kept_ram, is_shared=True)
        if self.template is not None and is_birth:
            return Ram(self.template / RAM, is_shared=False)
        return None


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
