"""Tables, harmless text, error lines, and the bar."""

import errno
import sys

import pytest

from hostctl.cli import render
from hostctl.cli.exits import UsageError
from hostctl.errors import ConfigError, MachineNotFound, TransferFailed, WrongState


def test_a_table_ends_each_line_with_its_last_word() -> None:
    text = render.table(("NAME", "STATE"), [("a", "running"), ("longer", "-")])
    assert text == "NAME    STATE\na       running\nlonger  -"


def test_an_empty_table_is_its_head() -> None:
    assert render.table(("NAME", "STATE"), []) == "NAME  STATE"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("two\nlines\tand\r", "two\\nlines\\tand\\r"),
        (b"\xff\xfe".decode(errors="surrogateescape"), "\\xff\\xfe"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_nothing_a_guest_writes_steers_the_terminal(text: str, shown: str) -> None:
    assert render.safe(text) == shown


def test_talk_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    render.talk("web: ready")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MachineNotFound("web"), "no machine named 'web'; try \"hostctl list\""),
        (ConfigError("bad name", hint="use letters"), "bad name; use letters"),
        (ConfigError("bad name"), "bad name"),
        (UsageError("cp: no"), "cp: no"),
        (TransferFailed(errno.ENOSPC, "put /a: disk full"), "put /a: disk full"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x y"), "no such file: x y"),
        (
            ExceptionGroup("tasks", [WrongState("web", "paused", "start", ())]),
            "cannot start machine 'web': it is paused",
        ),
    ],
)
def test_an_error_is_one_line_that_says_what_and_what_next(error: Exception, line: str) -> None:
    assert render.error_line(error) == line


def test_an_unexpected_error_says_how_to_see_more() -> None:
    line = render.error_line(KeyError("pid"))
    assert line.startswith("unexpected KeyError: 'pid'")
    assert "-vv" in line


def test_a_bar_shows_nothing_and_loads_nothing_without_a_terminal() -> None:
    before = "rich" in sys.modules
    with render.Bar("file", 10) as bar:
        bar(5)
    assert ("rich" in sys.modules) == before


def test_a_bar_appears_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(render, "BAR_AFTER_S", 0.0)
    with render.Bar("a [bold]file", 10) as bar:
        bar(5)
        assert bar._progress is not None
        assert bar._progress.tasks[0].completed == 5
    assert bar._progress is None
