"""Which machine of which VirtualBox a machine of ours is. Values only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import ConfigError
from ..interface import Capabilities
from .place import Place

__all__ = ["CAPABILITIES", "WAYS", "Target", "way_of"]

WAYS: Final = ("auto", "api", "manage")
CAPABILITIES: Final = Capabilities()


@dataclass(frozen=True, slots=True)
class Target:
    """One machine. `is_adopted`: somebody else made it, and we never remove it unasked.

    `id` is VirtualBox's, `name` what it calls the machine.
    """

    place: Place
    id: str
    name: str
    is_adopted: bool = False

    @classmethod
    def new(cls, name: str, connect: str | None) -> Target:
        """Return the target of a machine to be made.

        Its name there tells people whose it is; part of the id keeps two homes apart that use one
        VirtualBox.
        """
        fresh = str(uuid.uuid4())
        return cls(Place.default(connect), fresh, f"hostctl-{name}-{fresh[:8]}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for machine.json."""
        return {
            "place": self.place.to_json(),
            "id": self.id,
            "name": self.name,
            "is_adopted": self.is_adopted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Rebuild a target from `to_json`'s values."""
        return cls(Place.from_json(data["place"]), data["id"], data["name"], data["is_adopted"])


def way_of(environ: Mapping[str, str] = os.environ) -> str:
    """Return how VirtualBox is asked: "auto" takes VBoxManage where its API is not installed.

    Raises:
        ConfigError: HOSTCTL_VBOX_API names something else.
    """
    way = environ.get("HOSTCTL_VBOX_API", WAYS[0])
    if way not in WAYS:
        raise ConfigError(f"HOSTCTL_VBOX_API={way!r} is unknown", hint=f"use one of {WAYS}")
    return way
