"""The verdict of `doctor`."""

import json

import pytest

from hostctl import doctor
from hostctl.cli.exits import Exit
from hostctl.cli.main import main
from hostctl.doctor import Finding, Status


def found(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    async def examine(home: object) -> tuple[Finding, ...]:
        return findings

    monkeypatch.setattr(doctor, "examine", examine)


def finding(status: str, *, required: bool) -> Finding:
    return Finding(
        part="qemu",
        status=Status(status),
        detail="8.2 \x1b[0m",
        fix="install it",
        required=required,
    )


def test_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found(monkeypatch, finding("ok", required=True), finding("warn", required=False))
    assert main(["doctor"]) == Exit.OK
    out = capsys.readouterr().out
    assert "hostctl can do its job here" in out
    assert "\x1b" not in out
    assert out.count("fix: install it") == 1, "what works needs no fix"


def test_a_required_part_that_fails_fails_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, finding("fail", required=True))
    assert main(["doctor"]) == Exit.FAILED
    assert "mend qemu" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == Exit.FAILED
    assert json.loads(capsys.readouterr().out)[0]["status"] == "fail"


def test_an_optional_part_that_fails_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, finding("fail", required=False))
    assert main(["doctor"]) == Exit.OK


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_color: str,
    colours: bool,
) -> None:
    found(monkeypatch, finding("ok", required=True))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    main(["doctor"])
    assert ("\x1b[32mok" in capsys.readouterr().out) == colours
