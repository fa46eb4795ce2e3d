"""Which domain a machine is, on which connection, and what such a connection can do.

Values only: nothing here needs the library.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..interface import Capabilities

__all__ = [
    "Target",
    "capabilities_of",
    "default_uri",
    "is_embedded",
    "is_local",
    "is_privileged",
]

_FULL = Capabilities(plug=True)
# What other drivers offer differs; what is sure is the life of a domain. libvirt's own test driver
# has snapshots, and neither streams nor storage of any content.
_LIFE = Capabilities(channels=False, console=False, create=False, live_snapshots=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One domain. `is_adopted`: somebody else made it, and we never remove it unasked."""

    uri: str
    domain: str
    uuid: str
    is_adopted: bool = False

    @classmethod
    def new(cls, name: str, uri: str | None) -> Target:
        """Return the target of a machine to be made.

        The domain's name tells people whose it is; part of the id keeps two homes apart that use
        one libvirt.
        """
        fresh = str(uuid.uuid4())
        return cls(uri or default_uri(), f"hostctl-{name}-{fresh[:8]}", fresh)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for machine.json."""
        return {
            "uri": self.uri,
            "domain": self.domain,
            "uuid": self.uuid,
            "is_adopted": self.is_adopted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Rebuild a target from `to_json`'s values."""
        return cls(data["uri"], data["domain"], data["uuid"], data["is_adopted"])


def default_uri(environ: Mapping[str, str] = os.environ) -> str:
    """Return the connection that libvirt's own tools would take."""
    named = environ.get("LIBVIRT_DEFAULT_URI")
    return named or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")


def capabilities_of(uri: str) -> Capabilities:
    """Tell what a connection can do, by its driver.

    `qemu:///embed` is a driver inside our process, without the daemon that carries streams.
    """
    return _FULL if _driver(uri) == "qemu" and not is_embedded(uri) else _LIFE


def is_embedded(uri: str) -> bool:
    """Tell whether the driver runs inside this process."""
    return urlsplit(uri).path == "/embed"


def is_local(uri: str) -> bool:
    """Tell whether the connection's host is this one: paths mean the same there."""
    parts = urlsplit(uri)
    return not parts.netloc and parts.scheme.partition("+")[2] in ("", "unix")


def is_privileged(uri: str) -> bool:
    """Tell whether it is the daemon of the whole host."""
    return urlsplit(uri).path == "/system"


def _driver(uri: str) -> str:
    return urlsplit(uri).scheme.partition("+")[0]
