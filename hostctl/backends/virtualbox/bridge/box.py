"""What operations work on: VirtualBox itself, and what is kept from one request to the next."""

from __future__ import annotations

import itertools
from typing import Any

from . import compat
from .serve import Fault

__all__ = ["Box"]


class Box:
    """VirtualBox, and things kept by number. All in one thread."""

    def __init__(self, api: compat.Api) -> None:
        self.api = api
        self.bindings = api.bindings
        self.virtualbox = api.virtualbox
        self._kept: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    def greeting(self) -> dict[str, Any]:
        """Return who we are."""
        return {
            "version": self.virtualbox.version,
            "api": self.virtualbox.api_version,
            "home": self.virtualbox.home_folder,
            "binaries": self.api.manager.getBinDir(),
            "python": self.api.python,
            "moved": self.api.moved,
        }

    def keep(self, thing: Any) -> int:
        """Keep something for later requests; return its number. Numbers are never used again."""
        number = next(self._numbers)
        self._kept[number] = thing
        return number

    def kept(self, number: int) -> Any:
        """Return what is kept. Raises a `Fault` of kind "gone" if it is not (any more)."""
        try:
            return self._kept[number]
        except KeyError:
            raise Fault("gone", f"nothing is kept as {number}: did the bridge die?") from None

    def drop(self, number: int) -> Any:
        """Keep something no longer; return it, None if it was not kept."""
        return self._kept.pop(number, None)

    def explain(self, error: BaseException) -> Fault | None:
        """Return our word for an error, None for a bug of ours."""
        fault = compat.explain(error)
        if fault is not None and not self._answers():
            return Fault("died", f"VBoxSVC has died: {fault}", fault.code)
        return fault

    def close(self) -> None:
        """Drop everything. The machines go on."""
        self._kept.clear()
        self.api.close()

    def _answers(self) -> bool:
        try:
            return bool(self.virtualbox.version)
        except Exception:
            return False
