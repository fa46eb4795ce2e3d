"""Snapshots from the command line."""

import json

import pytest

from hostctl.cli.main import main

from .fakes import FakeMachine


@pytest.mark.parametrize(
    ("verb", "call", "done"),
    [
        ("save", "save", "saved"),
        ("restore", "restore", "restored"),
        ("delete", "delete snapshot", "deleted"),
    ],
)
def test_each_verb_is_a_call(
    web: FakeMachine, verb: str, call: str, done: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["snapshot", verb, "web", "base", "--json"]) == 0
    assert web.calls == [(call, "base")]
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["tag"], told["done"]) == ("web", "base", done)


def test_a_snapshot_may_be_quiesced(web: FakeMachine) -> None:
    assert main(["snapshot", "save", "--quiesce", "web", "base"]) == 0
    assert web.calls == [("save", ("base", "quiesced"))]


def test_snapshots_are_listed(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "list", web.name]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["TAG", "CREATED", "MEMORY", "SIZE"]
    assert line.startswith("base  2026-01-0")
    assert line.endswith("yes     97 MiB")


def test_snapshots_as_json(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "list", web.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tag"] == "base"
