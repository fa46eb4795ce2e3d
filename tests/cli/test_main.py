"""The parser, the cut of `exec`, and what becomes of errors."""

import argparse
import sys
from types import ModuleType

import pytest

from hostctl.cli import arguments, main
from hostctl.cli.exits import Exit, exit_for
from hostctl.errors import (
    Busy,
    ChannelReset,
    ConfigError,
    DeadlineExceeded,
    MachineExists,
    MachineNotFound,
    PortsBusy,
    Refused,
    SnapshotExists,
    SnapshotNotFound,
    TemplateExists,
    TemplateInUse,
    TransferFailed,
    WrongState,
)
from hostctl_channels.errors import SpawnFailed
from hostctl_images.errors import ImageNotFound

from .fakes import FakeController, FakeMachine

VALUED = frozenset({"-e", "--env", "-w", "--timeout"})


@pytest.mark.parametrize(
    ("line", "ours", "guests"),
    [
        ("web -- ls -i", "web", "ls -i"),
        ("web ls -i", "web", "ls -i"),
        ("-i web -e A=b ls -e x", "-i web -e A=b", "ls -e x"),
        ("-ie A=b web cmd", "-ie A=b web", "cmd"),
        ("-eA=b web cmd", "-eA=b web", "cmd"),
        ("web --timeout=5 --env A=b -- -x -- y", "web --timeout=5 --env A=b", "-x -- y"),
        ("web - x", "web", "- x"),
        ("web", "web", ""),
        ("-h", "-h", ""),
    ],
)
def test_the_guests_words_begin_after_the_name(line: str, ours: str, guests: str) -> None:
    cut = arguments.split_guest_words(line.split(), VALUED)
    assert cut == (ours.split(), guests.split())


def test_the_valued_options_of_exec_are_those_it_declares() -> None:
    parser = argparse.ArgumentParser()
    arguments.exec_(parser)
    options = main._valued_options(parser)
    valued = {"-e", "--env", "-w", "--workdir", "-u", "--user", "--timeout", "--channel", "--keep"}
    valued.add("--parallel")
    assert valued == options


@pytest.mark.parametrize(
    "line", ["-v exec web -v ls -v", "-vv exec web ls -v", "exec -vv web ls -v"]
)
def test_verbose_may_stand_anywhere_before_the_guests_words(line: str) -> None:
    args = main.parse(line.split())
    assert (args.verbose, args.command) == (2, ["ls", "-v"])


@pytest.mark.parametrize("line", ["-v snapshot list web", "snapshot list web -v"])
def test_verbose_may_stand_anywhere_in_a_group(line: str) -> None:
    assert main.parse(line.split()).verbose == 1


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("strt web", Exit.USAGE, 'hostctl: unknown command "strt", did you mean "start"?'),
        ("start", Exit.USAGE, "hostctl: the following arguments are required: NAME"),
        ("exec", Exit.OURS, "hostctl: the following arguments are required: NAME"),
        ("exec web", Exit.OURS, "hostctl: exec: no command given"),
        ("stop web --timeout 5x", Exit.USAGE, '"5x" is not a duration'),
        ("create web --memory lots", Exit.USAGE, "write it like 256M"),
        ("create web --cpus 0", Exit.USAGE, '"0" is not a count'),
        ("cp --mode 999 a web:b", Exit.USAGE, '"999" are no permissions'),
        ("snapshot", Exit.USAGE, "COMMAND"),
        ("start nobody", Exit.NOT_FOUND, "hostctl: no machine named 'nobody'"),
        ("exec nobody true", Exit.OURS, "hostctl: no machine named 'nobody'"),
        ("create web", Exit.WRONG_STATE, "hostctl: machine 'web' exists already"),
    ],
)
@pytest.mark.usefixtures("controller", "built_tiny")
def test_a_mistake_is_one_line_and_a_code(
    line: str, code: Exit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "in_exec"),
    [
        (ConfigError("x"), Exit.USAGE, Exit.OURS),
        (MachineNotFound("x"), Exit.NOT_FOUND, Exit.OURS),
        (SnapshotNotFound("x", "y"), Exit.NOT_FOUND, Exit.OURS),
        (ImageNotFound("no image x"), Exit.NOT_FOUND, Exit.OURS),
        (FileNotFoundError(2, "no", "x"), Exit.NOT_FOUND, Exit.OURS),
        (TransferFailed(2, "no such file"), Exit.NOT_FOUND, Exit.OURS),
        (TransferFailed(28, "disk full"), Exit.FAILED, Exit.OURS),
        (MachineExists("x"), Exit.WRONG_STATE, Exit.OURS),
        (SnapshotExists("x", "y"), Exit.WRONG_STATE, Exit.OURS),
        (TemplateExists("x"), Exit.WRONG_STATE, Exit.OURS),
        (TemplateInUse("x", ["y"]), Exit.WRONG_STATE, Exit.OURS),
        (WrongState("x", "paused", "reach", ()), Exit.WRONG_STATE, Exit.OURS),
        (Busy("x", 1), Exit.TIMED_OUT, Exit.OURS),
        (PortsBusy("x"), Exit.TIMED_OUT, Exit.OURS),
        (DeadlineExceeded("x"), Exit.TIMED_OUT, Exit.OURS),
        (ChannelReset("x"), Exit.FAILED, Exit.OURS),
        (Refused("x", "user"), Exit.FAILED, Exit.REFUSED),
        (SpawnFailed(2, "no such folder"), Exit.NOT_FOUND, Exit.REFUSED),
        (KeyError("bug"), Exit.FAILED, Exit.OURS),
    ],
)
def test_each_error_has_its_code(error: Exception, code: Exit, in_exec: Exit) -> None:
    assert exit_for(error, "start") == code
    assert exit_for(error, "exec") == in_exec


def test_a_bug_shows_its_traceback_only_when_asked(
    web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    web.error = RuntimeError("oops")
    assert main.main(["pause", "web"]) == Exit.FAILED
    assert "Traceback" not in capsys.readouterr().err
    assert main.main(["pause", "-vv", "web"]) == Exit.FAILED
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(web: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("hostctl.cli.power.pause", interrupt)
    assert main.main(["pause", "web"]) == Exit.INTERRUPTED


def test_every_row_of_the_table_leads_somewhere(controller: FakeController) -> None:
    import importlib

    for command in main.COMMANDS:
        module, _, function = command.target.partition(":")
        found = importlib.import_module(f"hostctl.cli.{module}")
        assert isinstance(found, ModuleType)
        assert callable(getattr(found, function)), command.name


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--help"], ["--version"], ["exec", "--help"]):
        with pytest.raises(SystemExit) as end:
            main.main(line)
        assert end.value.code in (0, None)
    assert "hostctl 0." in capsys.readouterr().out
    assert sys.stdout is not None
