"""The moves of a machine's life."""

import json

import pytest

from hostctl.cli.exits import Exit
from hostctl.cli.main import main
from hostctl.errors import WrongState
from hostctl.lifecycle import MachineState

from .fakes import FakeController, FakeMachine


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("start web", ("start", {"wait": True, "timeout_s": 120})),
        ("start web --no-wait --timeout 5s", ("start", {"wait": False, "timeout_s": 5.0})),
        ("stop web", ("stop", {"force": False, "timeout_s": 30})),
        ("stop -f web --timeout 1m", ("stop", {"force": True, "timeout_s": 60.0})),
        ("pause web", ("pause", None)),
        ("resume web", ("resume", None)),
        ("reset web", ("reset", {"wait": True})),
        ("reset web --no-wait", ("reset", {"wait": False})),
        ("delete web", ("delete", {"force": False, "undefine": False})),
        ("delete web -f", ("delete", {"force": True, "undefine": False})),
        ("delete web --undefine", ("delete", {"force": False, "undefine": True})),
        ("wait web", ("wait", ("ready", 120))),
        ("wait web --for stopped --timeout 3", ("wait", (MachineState.STOPPED, 3.0))),
    ],
)
def test_a_line_becomes_a_call(
    web: FakeMachine, line: str, call: tuple[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == Exit.OK
    assert web.calls == [call]
    assert capfd.readouterr() == ("", ""), "a script's success is silent"


def test_json_tells_what_was_done(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--json", "web"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told.pop("duration_s") >= 0
    assert told == {"event": "done", "name": "web", "done": "paused"}


def test_one_that_fails_does_not_hold_up_the_others(
    controller: FakeController, web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    web.error = WrongState("web", "stopped", "pause", (), hint="hostctl start web")
    assert main(["pause", "web", "nobody", "db"]) == Exit.WRONG_STATE
    assert controller.machine("db").calls == [("pause", None)]
    said = capsys.readouterr().err
    assert "hostctl: cannot pause machine 'web': it is stopped; try \"hostctl start web\"" in said
    assert "no machine named 'nobody'" in said


def test_a_name_given_twice_is_moved_once(web: FakeMachine) -> None:
    assert main(["pause", "web", "web"]) == Exit.OK
    assert web.calls == [("pause", None)]
