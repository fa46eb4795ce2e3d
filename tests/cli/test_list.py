"""The list of machines."""

import json

import pytest

from hostctl.cli.main import main
from hostctl.lifecycle import MachineState

from .fakes import FakeController, FakeMachine, installed


def test_a_line_a_machine(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    web.current, web.tags = MachineState.RUNNING, ("ci",)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "NAME  STATE    IMAGE  CPUS  MEMORY   UPTIME  TAGS\n"
        "db    stopped  tiny   1     256 MiB  -       -\n"
        "web   running  tiny   1     256 MiB  1m 23s  ci\n"
    )


def test_names_only(controller: FakeController, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "-q"]) == 0
    assert capsys.readouterr().out == "db\nweb\n"


def test_json_is_one_array(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    web.current = MachineState.RUNNING
    assert main(["list", "--json"]) == 0
    machines = json.loads(capsys.readouterr().out)
    assert machines[1] == {
        "name": "web",
        "state": "running",
        "image": "tiny",
        "cpus": 1,
        "memory_mib": 256,
        "uptime_s": 83.5,
        "tags": [],
    }


def test_no_machines_are_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    with installed(FakeController()):
        assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
