"""What the type libraries of VirtualBox's versions say, recorded: see `source` in each file.

6.1, 7.0 and 7.1 are from the interface definitions of their releases, 7.2 from a running one, which
tests/virtualbox compares.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "data/virtualbox"
VERSIONS = ("6.1", "7.0", "7.1", "7.2")


@dataclass(frozen=True)
class Facts:
    """One version. `inputs`: how many arguments a method takes."""

    enums: Mapping[str, Mapping[str, int]]
    inputs: Mapping[str, int]

    @classmethod
    def of(cls, version: str) -> "Facts":
        data = json.loads((FOLDER / f"{version}.json").read_text())
        return cls(data["enums"], data["inputs"])

    def constants(self, enumeration: str) -> Mapping[str, int]:
        return self.enums.get(enumeration, {})
