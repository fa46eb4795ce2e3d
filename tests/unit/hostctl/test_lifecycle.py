import pytest

from hostctl.errors import WrongState
from hostctl.lifecycle import MOVES, MachineState, allowed, guard

STATES = list(MachineState)


@pytest.mark.parametrize("move", ["start", "stop", "save", "pause", "resume", "restore", "delete"])
def test_every_repeatable_move_may_follow_itself(move: str) -> None:
    for (_, name), after in MOVES.items():
        if name == move:
            assert MOVES.get((after, move), after) is after


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_way_to_stopped(state: MachineState) -> None:
    assert guard("web", state, "stop") is MachineState.STOPPED


def test_a_crashed_machine_can_be_started_again() -> None:
    assert guard("web", MachineState.CRASHED, "start") is MachineState.RUNNING


@pytest.mark.parametrize("state", [s for s in STATES if s is not MachineState.RUNNING])
def test_only_a_running_guest_can_be_reached(state: MachineState) -> None:
    with pytest.raises(WrongState) as caught:
        guard("web", state, "reach")
    assert state.value in str(caught.value)
    assert caught.value.hint in ("hostctl start web", "hostctl resume web")


def test_a_refusal_names_what_is_allowed() -> None:
    with pytest.raises(WrongState) as caught:
        guard("web", MachineState.PAUSED, "reset")
    assert caught.value.moves == allowed(MachineState.PAUSED)
    assert "resume" in caught.value.moves


def test_only_living_machines_are_alive() -> None:
    assert [s.value for s in STATES if s.is_alive] == ["running", "paused"]
