"""Effort: how much is measured. Enough for a claim, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FULL", "QUICK", "Effort"]

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Effort:
    """How often, per round, and how many bytes."""

    rounds: int
    pings: int
    execs: int
    commands: int  # whole processes of the command line
    bulk_bytes: int
    qga_bytes: int  # less: at its pace 64 MiB take a minute, and its rate does not depend on it
    wire_bodies: int
    huge_bytes: int  # for the host's memory
    huge_rounds: int


FULL: Final = Effort(5, 100, 20, 5, 64 * _MIB, 16 * _MIB, 4096, 1024 * _MIB, 3)
QUICK: Final = Effort(2, 20, 5, 2, 16 * _MIB, 4 * _MIB, 1024, 256 * _MIB, 1)
