"""Several machines on one line: who is meant, what is told, which code comes out."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostctl.cli import several
from hostctl.cli.exits import Exit
from hostctl.cli.lines import MAX_LINE, Lines
from hostctl.cli.main import main
from hostctl.errors import BackendError, ChannelReset, WrongState
from hostctl_channels.interface import ExitStatus

from .descriptors import replaced, stdin_of
from .fakes import FakeController, FakeMachine, FakeProcess, ReadingProcess, installed


@pytest.fixture
def fleet() -> Iterator[FakeController]:
    """Machines web-1 to web-3, db and, with tags, ci-a and ci-b."""
    with installed(FakeController("web-1", "web-2", "web-3", "db", "ci-a", "ci-b")) as fake:
        for name in ("ci-a", "ci-b"):
            fake.machine(name).tags = ("ci",)
        yield fake


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ends(machine: FakeMachine, code: int, *output: tuple[int, bytes]) -> None:
    machine.next_process = FakeProcess(output, ExitStatus(code))


def called(fleet: FakeController) -> list[str]:
    return [name for name, machine in sorted(fleet.all.items()) if machine.calls]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("web-1 db", "db web-1"),
        ("web-*", "web-1 web-2 web-3"),
        ("web-[13],db", "db web-1 web-3"),
        ("@ci", "ci-a ci-b"),
        ("@c* web-2", "ci-a ci-b web-2"),
        ("*", "ci-a ci-b db web-1 web-2 web-3"),
    ],
)
def test_words_choose(fleet: FakeController, words: str, names: str) -> None:
    assert main(["pause", *words.split()]) == Exit.OK
    assert called(fleet) == names.split()


@pytest.mark.parametrize(
    "line",
    [
        "start {}",
        "stop {}",
        "delete {}",
        "wait {}",
        "show {}",
        "tag {} --add x",
        "snapshot save {} base",
        "snapshot list {}",
        "snapshot restore {} base",
        "exec {} -- true",
        "list {}",
        "stats {}",
        "cp -r {folder} {}:/srv/",
        "sync {folder} {}:/srv",
        "sync {}:/srv {folder}/back",
    ],
)
def test_every_command_takes_a_pattern(fleet: FakeController, line: str, tmp_path: Path) -> None:
    for machine in fleet.all.values():
        ends(machine, 0)
    assert main(line.format("web-*", folder=tmp_path).split()) == Exit.OK
    assert not set(called(fleet)) - {"web-1", "web-2", "web-3"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("pause x-* web-1", Exit.NOT_FOUND),
        ("pause @none", Exit.NOT_FOUND),
        ("list x-*", Exit.NOT_FOUND),
        ("exec x-* -- true", Exit.NO_MATCH),
        ("exec -d @none -- true", Exit.NO_MATCH),
        ("cp /etc/hostname x-*:/tmp/", Exit.NOT_FOUND),
        ("pause web-[", Exit.USAGE),
        ("exec a,,b -- true", Exit.OURS),
    ],
)
def test_no_match_is_an_error_and_nothing_is_done(
    fleet: FakeController, line: str, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    assert called(fleet) == []
    assert "hostctl: no " in (said := capsys.readouterr().err) or "names no machines" in said


def test_no_match_may_be_allowed(fleet: FakeController, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--allow-empty", "x-*", "web-1"]) == Exit.OK
    assert called(fleet) == ["web-1"]
    assert main(["exec", "--json", "--allow-empty", "x-*", "--", "true"]) == Exit.OK
    (summary,) = events(capfd.readouterr().out)
    assert (summary["event"], summary["machines"]) == ("summary", 0)


def test_output_has_its_machines_name_before_each_line(
    fleet: FakeController, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ends(fleet.machine("web-1"), 0, (1, b"one\ntw"), (2, b"oops\n"), (1, b"o\n"))
    ends(fleet.machine("web-2"), 0, (1, b"no end"))
    ends(fleet.machine("web-3"), 0)
    assert main(["exec", "--parallel", "1", "web-*", "--", "cmd"]) == Exit.OK
    assert capfdbinary.readouterr() == (
        b"web-1: one\nweb-1: two\nweb-2: no end\n",
        b"web-1: oops\n",
    )
    ends(fleet.machine("web-1"), 0, (1, b"one\n"))
    main(["exec", "--no-prefix", "web-1,web-3", "--", "cmd"])
    assert capfdbinary.readouterr().out == b"one\n"


def test_a_pattern_that_matches_one_is_a_group_all_the_same(
    fleet: FakeController, capfd: pytest.CaptureFixture[str]
) -> None:
    ends(fleet.machine("db"), 3, (1, b"x\n"))
    assert main(["exec", "d*", "--", "cmd"]) == 3
    out, err = capfd.readouterr()
    assert out == "db: x\n"
    assert err.startswith("hostctl: 1 machine: 0 ok, 1 failed: db (")


def test_json_is_one_event_a_line(fleet: FakeController, capfd: pytest.CaptureFixture[str]) -> None:
    ends(fleet.machine("web-1"), 0, (1, "grüße\n".encode()), (2, b"\xff\n"))
    fleet.machine("web-2").error = ChannelReset("cut")
    fleet.machine("web-3").next_process = FakeProcess((), ExitStatus(None, 9))
    assert main(["exec", "--json", "--parallel", "1", "web-*", "--", "cmd"]) == Exit.OURS
    found = events(capfd.readouterr().out)
    for event in found:
        event.pop("duration_s", None)
    assert found == [
        {"event": "output", "name": "web-1", "stream": "stdout", "text": "grüße\n"},
        {"event": "output", "name": "web-1", "stream": "stderr", "base64": "/wo="},
        {"event": "exit", "name": "web-1", "code": 0, "signal": None, "timed_out": False},
        {"event": "failed", "name": "web-2", "code": 125, "error": "cut"},
        {"event": "exit", "name": "web-3", "code": None, "signal": 9, "timed_out": False},
        {"event": "summary", "machines": 3, "ok": 1, "failed": 2, "skipped": 0, "code": 125},
    ]


def test_json_of_one_machine_has_no_summary(
    fleet: FakeController, capfd: pytest.CaptureFixture[str]
) -> None:
    ends(fleet.machine("db"), 4, (1, b"x"))
    assert main(["exec", "--json", "db", "--", "cmd"]) == 4
    assert [event["event"] for event in events(capfd.readouterr().out)] == ["output", "exit"]


@pytest.mark.parametrize(("codes", "code"), [((0, 0, 0), 0), ((0, 7, 3), 7), ((5, 0, 1), 5)])
def test_the_code_is_that_of_the_first_that_failed(
    fleet: FakeController, codes: tuple[int, ...], code: int
) -> None:
    for number, each in enumerate(codes, 1):
        ends(fleet.machine(f"web-{number}"), each)
    assert main(["exec", "web-*", "--", "cmd"]) == code


def test_a_summary_is_said_when_something_failed(
    fleet: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.machine("web-2").error = WrongState("web-2", "stopped", "pause", ())
    assert main(["pause", "web-*", "nobody"]) == Exit.WRONG_STATE
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("hostctl: 4 machines: 2 ok, 2 failed: web-2, nobody (")
    assert "hostctl: cannot pause machine 'web-2': it is stopped" in said


def test_an_error_that_names_nobody_is_given_a_name(
    fleet: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.machine("web-1").error = BackendError("the disk is full")
    main(["pause", "web-*"])
    assert "hostctl: web-1: the disk is full\n" in capsys.readouterr().err


def test_fail_fast_skips_the_rest(
    fleet: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.machine("web-2").error = BackendError("no")
    assert main(["pause", "--json", "--fail-fast", "--parallel", "1", "web-*", "db"]) == 1
    kinds = [(event["event"], event.get("name")) for event in events(capsys.readouterr().out)]
    assert kinds == [
        ("done", "web-1"),
        ("failed", "web-2"),
        ("skipped", "web-3"),
        ("skipped", "db"),
        ("summary", None),
    ]
    assert called(fleet) == ["web-1", "web-2"]


def test_a_status_that_is_not_0_is_a_failure_for_fail_fast(fleet: FakeController) -> None:
    for number in (1, 2, 3):
        ends(fleet.machine(f"web-{number}"), 0 if number == 1 else 9)
    assert main(["exec", "--fail-fast", "--parallel", "1", "web-*", "--", "cmd"]) == 9
    assert called(fleet) == ["web-1", "web-2"]


class Slow(FakeProcess):
    """Ends when it is signalled, and signals us first."""

    async def read(self) -> tuple[int, bytes] | None:
        if not self.signals:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
        return None


def test_ctrl_c_reaches_those_that_run_and_no_more_begin(fleet: FakeController) -> None:
    process = fleet.machine("web-1").next_process = Slow((), ExitStatus(0))
    assert main(["exec", "--parallel", "1", "web-*", "--", "cmd"]) == Exit.INTERRUPTED
    assert process.signals[0] == "INT"
    assert called(fleet) == ["web-1"]


def test_stdin_is_read_once_for_all(fleet: FakeController) -> None:
    for name in ("web-1", "web-2", "web-3"):
        fleet.machine(name).next_process = ReadingProcess()
    with stdin_of(b"for all of you"):
        assert main(["exec", "-i", "web-*", "--", "cat"]) == Exit.OK
    for name in ("web-1", "web-2", "web-3"):
        assert fleet.machine(name).next_process.received == b"for all of you"


def test_a_reader_that_leaves_ends_all_quietly(
    fleet: FakeController, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        ends(fleet.machine(f"web-{number}"), 0, (1, b"y\n" * 50_000), (1, b"z\n"))
    reader, writer = os.pipe()
    os.close(reader)
    with replaced(1, writer):
        os.close(writer)
        assert main(["exec", "web-*", "--", "yes"]) == Exit.BROKEN_PIPE
    assert capfd.readouterr().err == ""


def test_a_terminal_shows_no_character_that_steers_it(fleet: FakeController) -> None:
    master, slave = os.openpty()
    ends(fleet.machine("db"), 0, (1, b"a\tb\x1b[2Jc\rd\r\n"))
    with replaced(1, slave):
        main(["exec", "d*", "--", "cmd"])
    assert os.read(master, 1000).rstrip() == b"db: a\tb\\x1b[2Jc\\rd"
    os.close(master)
    os.close(slave)


def test_what_is_kept_of_a_line_without_an_end_is_bounded() -> None:
    lines = Lines()
    assert lines.feed(b"x" * (MAX_LINE - 1)) == b""
    assert len(lines.feed(b"x" * 10)) == MAX_LINE + 9
    assert lines.feed(b"a\nb") == b"a\n"
    assert lines.close() == b"b"
    assert lines.close() == b""


def test_names_apart_are_told_to_be_written_together(
    fleet: FakeController, capfd: pytest.CaptureFixture[str]
) -> None:
    ends(fleet.machine("db"), 127)
    assert main(["exec", "db", "web-1", "--", "id"]) == 127
    assert "several machines are one word: db,web-1 before the --" in capfd.readouterr().err
    assert main(["exec", "db", "--", "nothing"]) == 127
    assert capfd.readouterr().err == ""


# Files


def test_a_file_goes_to_each(fleet: FakeController, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(b"work")
    fleet.machine("web-2").folders.add(b"/srv")
    assert main(["cp", str(tmp_path / "job"), "web-*:/srv"]) == Exit.OK
    assert fleet.machine("web-1").files == {b"/srv": b"work"}
    assert fleet.machine("web-2").files == {b"/srv/job": b"work"}
    assert fleet.machine("web-3").files == {b"/srv": b"work"}


def test_a_pipe_goes_to_each(fleet: FakeController, capfd: pytest.CaptureFixture[str]) -> None:
    with stdin_of(b"piped"):
        assert main(["cp", "--json", "-", "@ci:/x"]) == Exit.OK
    assert {name: m.files.get(b"/x") for name, m in fleet.all.items() if m.files} == {
        "ci-a": b"piped",
        "ci-b": b"piped",
    }
    found = events(capfd.readouterr().out)
    assert [event["event"] for event in found] == ["copied", "copied", "summary"]
    assert {event["destination"] for event in found[:2]} == {"ci-a:/x", "ci-b:/x"}


def test_files_come_into_a_folder_each(
    fleet: FakeController, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 3):
        fleet.machine(f"web-{number}").files[b"/var/log/x"] = b"%d" % number
    assert main(["cp", "web-*:/var/log/x", str(tmp_path / "logs")]) == Exit.NOT_FOUND
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*/x")}
    assert found == {"logs/web-1/x": b"1", "logs/web-3/x": b"3"}
    assert not (tmp_path / "logs/web-2").exists(), "no folder is left of what failed"
    assert "hostctl: web-2: get /var/log/x: no such file\n" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["web-*:/x -", "web-*:/x {file}", "web-*:/x/ {dir}", "@ci:/.. ."])
def test_files_of_several_need_a_folder_and_a_name(
    fleet: FakeController, line: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = line.format(file=tmp_path / "file", dir=tmp_path)
    assert main(["cp", *words.split()]) == Exit.USAGE
    assert called(fleet) == []


# Tags


def test_tags_are_given_taken_and_told(
    fleet: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "web-1", "db", "--add", "x", "--add", "y"]) == Exit.OK
    assert main(["tag", "db", "--remove", "x"]) == Exit.OK
    assert capsys.readouterr().out == ""
    assert main(["tag", "web-1,db"]) == Exit.OK
    assert sorted(capsys.readouterr().out.splitlines()) == ["db: y", "web-1: x y"]
    assert main(["tag", "db", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == ["y"]
    assert main(["list", "-q", "@x"]) == Exit.OK
    assert capsys.readouterr().out == "web-1\n"


@pytest.mark.usefixtures("built_tiny", "fleet")
def test_a_machine_may_be_born_with_tags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "new", "--tag", "@a", "--tag", "b", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "group"),
    [("web", 0), ("1.2.3", 0), ("web db", 1), ("w*", 1), ("[ab]", 1), ("@ci", 1), ("a,b", 1)],
)
def test_one_plain_name_is_no_group(words: str, group: int) -> None:
    assert several.is_group(words.split()) == group


def test_of_a_folder_that_does_not_come_and_of_a_dry_run_nothing_is_left(
    fleet: FakeController, tmp_path: Path
) -> None:
    assert main(["sync", "-n", "web-*:/srv", str(tmp_path / "out")]) == Exit.OK
    for machine in fleet.all.values():
        machine.error = BackendError("told to")
    assert main(["sync", "web-*:/srv", str(tmp_path / "out")]) != Exit.OK
    assert not list(tmp_path.glob("out/*"))
