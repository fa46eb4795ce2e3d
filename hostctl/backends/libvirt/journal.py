"""What we made on hypervisors, written down before it is made: so that a killed hostctl leaves
nothing that the next one cannot find.

One file per domain, in the home's state directory. An entry whose machine is not there any more, or
never came to be, is a leftover.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import BackendError
from ...state import MachineFiles, read_json, write_json
from .target import Target

__all__ = ["Journal"]


class Journal:
    """The entries of one home."""

    def __init__(self, files: MachineFiles) -> None:
        self._machines = files.directory.parent
        self._folder = self._machines.parent / "libvirt"

    def note(self, name: str, target: Target) -> None:
        """Write down that `target` is about to be made, for machine `name`."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_json(self._entry(target), {"name": name, **target.to_json()})

    def strike(self, target: Target) -> None:
        """Forget it: nothing of it is left."""
        self._entry(target).unlink(missing_ok=True)

    def leftovers(self, uri: str) -> Iterator[Target]:
        """Yield what was made on `uri` and belongs to no machine. Hold the home's lock."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                entry = read_json(path) or {}
                target = Target.from_json(entry)
            except (BackendError, KeyError):
                continue  # not ours to judge
            if target.uri == uri and not self._has_machine(entry["name"], target):
                yield target

    def _has_machine(self, name: str, target: Target) -> bool:
        found = read_json(self._machines / name / "machine.json") or {}
        return bool((found.get("options") or {}).get("uuid") == target.uuid)

    def _entry(self, target: Target) -> Path:
        return self._folder / f"{target.uuid}.json"
