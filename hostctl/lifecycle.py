"""The states of a machine and the moves between them, as one table.

Owns the words and the rule; how a move is made is the back end's, when is `machine.py`'s.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

from .errors import WrongState

__all__ = ["MOVES", "MachineState", "allowed", "guard"]


class MachineState(Enum):
    """What a machine is doing. `CRASHED`: its process ended without being told to."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"

    @property
    def is_alive(self) -> bool:
        """True while the machine has a process."""
        return self in _ALIVE


_STOPPED, _RUNNING, _PAUSED, _CRASHED = MachineState
_ALIVE = frozenset({_RUNNING, _PAUSED})

# (state, move) → state after it. A move onto the same state is a no-op or repeatable: idempotence
# is in the table. What is not here is refused by `guard`.
MOVES = MappingProxyType(
    {
        (_STOPPED, "start"): _RUNNING,
        (_CRASHED, "start"): _RUNNING,
        (_RUNNING, "start"): _RUNNING,
        (_STOPPED, "stop"): _STOPPED,
        (_CRASHED, "stop"): _STOPPED,
        (_RUNNING, "stop"): _STOPPED,
        (_PAUSED, "stop"): _STOPPED,
        (_STOPPED, "save"): _STOPPED,
        (_RUNNING, "save"): _STOPPED,
        (_PAUSED, "save"): _STOPPED,
        (_RUNNING, "pause"): _PAUSED,
        (_PAUSED, "pause"): _PAUSED,
        (_PAUSED, "resume"): _RUNNING,
        (_RUNNING, "resume"): _RUNNING,
        (_RUNNING, "reset"): _RUNNING,
        (_RUNNING, "snapshot"): _RUNNING,
        (_PAUSED, "snapshot"): _PAUSED,
        (_STOPPED, "restore"): _RUNNING,
        (_CRASHED, "restore"): _RUNNING,
        (_RUNNING, "restore"): _RUNNING,
        (_PAUSED, "restore"): _RUNNING,
        (_STOPPED, "delete"): _STOPPED,
        (_CRASHED, "delete"): _STOPPED,
        (_RUNNING, "reach"): _RUNNING,  # exec, put, get, ping: anything that needs the guest awake
    }
)

_WAY_OUT = {
    _STOPPED: "hostctl start {name}",
    _CRASHED: "hostctl start {name}",
    _PAUSED: "hostctl resume {name}",
    _RUNNING: "hostctl stop {name}",
}


def allowed(state: MachineState) -> tuple[str, ...]:
    """Return the moves that `state` allows, sorted."""
    return tuple(sorted(move for at, move in MOVES if at is state))


def guard(name: str, state: MachineState, move: str) -> MachineState:
    """Return the state after `move`.

    Raises:
        WrongState: the table does not have the move; the error names the state and the way out.
    """
    after = MOVES.get((state, move))
    if after is None:
        hint = _WAY_OUT[state].format(name=name)
        raise WrongState(name, state.value, move, allowed(state), hint=hint)
    return after
