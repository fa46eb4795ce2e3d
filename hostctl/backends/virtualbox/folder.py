"""The folders in which VirtualBox keeps machines of ours, written down before they are made.

They are not in the machine's own, which is renamed when it is whole: VirtualBox remembers paths. A
folder whose machine is not there any more, or never came to be, is a leftover.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...errors import BackendError
from ...state import MachineFiles, read_json, remove_tree, write_json
from .place import Place
from .target import Target

__all__ = ["Folders"]

NOTE: Final = "hostctl.json"


class Folders:
    """The folders of one home."""

    def __init__(self, files: MachineFiles) -> None:
        self._machines = files.directory.parent
        self.root = self._machines.parent / "virtualbox"

    def of(self, target: Target) -> Path:
        """Return the folder of a machine."""
        return self.root / target.name

    def note(self, name: str, target: Target) -> Path:
        """Make the folder of what is about to be made, for machine `name`."""
        folder = self.of(target)
        folder.mkdir(mode=0o700, parents=True)
        write_json(folder / NOTE, {"machine": name, **target.to_json()})
        return folder

    def strike(self, target: Target) -> None:
        """Remove the folder: VirtualBox has nothing in it any more."""
        remove_tree(self.of(target))

    def leftovers(self, place: Place) -> Iterator[Target]:
        """Yield what was made at `place` and belongs to no machine. Hold the home's lock."""
        for path in sorted(self.root.glob(f"*/{NOTE}")):
            try:
                entry = read_json(path) or {}
                target = Target.from_json(entry)
            except (BackendError, KeyError, TypeError):
                continue  # not ours to judge
            if target.place == place and not self._has_machine(entry["machine"], target):
                yield target

    def _has_machine(self, name: str, target: Target) -> bool:
        found = read_json(self._machines / name / "machine.json") or {}
        return bool((found.get("options") or {}).get("id") == target.id)
