"""What of a machine's run its hypervisor cannot say: run.json, from a start of ours to its end."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import BackendError
from ..lifecycle import MachineState
from ..state import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Run", "read_run", "state_at_rest"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """Since when it runs, why its accelerator was chosen, and whether a crash was seen."""

    started_s: float | None  # since the epoch; None: it ran before we came
    accel: str | None = None
    accel_reason: str | None = None
    has_crashed: bool = False

    @classmethod
    def read(cls, path: Path) -> Run | None:
        """Return what is there; see `read_run`."""
        return read_run(path, cls)

    def write(self, path: Path) -> None:
        """Put it there, whole or not at all."""
        write_json(path, asdict(self))

    @property
    def uptime_s(self) -> float | None:
        """How long it has run; None where nobody knows."""
        if self.started_s is None or self.has_crashed:
            return None
        return max(0.0, time.time() - self.started_s)


def read_run(path: Path, kind: Callable[..., T]) -> T | None:
    """Return a record of one's own kind; None where there is nothing.

    Raises:
        BackendError: another version of hostctl wrote it.
    """
    data = read_json(path)
    if data is None:
        return None
    try:
        return kind(**data)
    except TypeError as err:
        raise BackendError(f"{path} is of another version: {err}") from err


def state_at_rest(run: Run | None, is_unclean: bool) -> MachineState:
    """Return the state of a machine that does not run: a run nobody ended may be a crash."""
    if run is None:
        return MachineState.STOPPED
    return MachineState.CRASHED if run.has_crashed or is_unclean else MachineState.STOPPED
