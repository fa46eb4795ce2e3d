"""Operations on machines as a whole: which there are, and their life."""

from __future__ import annotations

from typing import Any

from .serve import Operation

__all__ = ["OPERATIONS"]


def list_machines(box: Any) -> list[dict[str, str]]:
    """Return every machine of this VirtualBox, by name and id."""
    return [{"name": one.name, "id": one.id_p} for one in box.virtualbox.machines]


OPERATIONS: dict[str, Operation] = {"machines.list": list_machines}
