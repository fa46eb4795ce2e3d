"""What `cp -r`, several sources, patterns and `sync` mean, and what lands where."""

import json
from pathlib import Path

import pytest

from hostctl.cli.exits import Exit
from hostctl.cli.main import main
from hostctl.tree import Moved, TreeReport

from .fakes import FakeMachine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local folder with a file in it, beside another file."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file").write_bytes(b"content")
    (tmp_path / "other").write_bytes(b"other")
    return tmp_path / "src"


def asked(web: FakeMachine, what: str) -> list[tuple[object, ...]]:
    return [how for name, how in web.calls if name == what]  # type: ignore[misc]  # tuples, all


@pytest.mark.parametrize(
    ("destination", "landed"),
    [("/new", b"/new"), ("/srv/", b"/srv/src"), ("/tmp", b"/tmp/src"), ("rel", b"rel")],
)
def test_a_folder_lands_by_name_or_in_a_folder(
    web: FakeMachine, folder: Path, destination: str, landed: bytes
) -> None:
    web.folders.add(b"/tmp")
    assert main(["cp", "-r", str(folder), f"web:{destination}"]) == Exit.OK
    assert asked(web, "put_tree")[0][:2] == (str(folder), landed)


def test_a_dot_has_the_name_of_where_we_are(
    web: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["cp", "-r", ".", "web:/srv/"]) == Exit.OK
    assert asked(web, "put_tree")[0][1] == b"/srv/src"


def test_what_was_asked_for_is_passed_on(web: FakeMachine, tmp_path: Path) -> None:
    web.folders.add(b"/etc")
    line = "--replace --partial --owners --exclude *.o --exclude x --links skip"
    words = [*line.split(), "--max-bytes", "1M", "--max-files", "7"]
    assert main(["cp", "-r", *words, "web:/etc", str(tmp_path)]) == Exit.OK
    ((source, target, how),) = asked(web, "get_tree")
    assert (source, target) == (b"/etc", str(tmp_path / "etc"))
    assert isinstance(how, dict)
    assert {key: value for key, value in how.items() if key != "progress"} == {
        "exclude": ["*.o", "x"],
        "replace": True,
        "partial": True,
        "owners": True,
        "links": "skip",
        "max_bytes": 1 << 20,
        "max_files": 7,
    }


def test_several_sources_go_into_a_folder(
    web: FakeMachine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(folder.parent / "other")
    assert main(["cp", "-r", str(folder), other, "web:/new"]) == Exit.USAGE
    assert "/new is no folder" in capsys.readouterr().err
    web.folders.add(b"/tmp")
    assert main(["cp", str(folder), other, "web:/tmp"]) == Exit.USAGE
    assert "is a folder; copy it with -r" in capsys.readouterr().err
    assert main(["cp", "-r", str(folder), other, "web:/tmp"]) == Exit.OK
    assert asked(web, "put_tree")[0][:2] == (str(folder), b"/tmp/src")
    assert web.files == {b"/tmp/other": b"other"}


def test_a_pattern_is_expanded_by_the_guest(web: FakeMachine, tmp_path: Path) -> None:
    web.files.update({b"/a/x": b"1", b"/a/y": b"2"})
    assert main(["cp", "web:/a/*", str(tmp_path)]) == Exit.OK
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "y").read_bytes()) == (b"1", b"2")


@pytest.mark.parametrize("names", [[b"/a/x", b"/b/x"], [b"/a/.."], [b"/"]])
def test_names_from_a_guest_cannot_lead_elsewhere(
    web: FakeMachine, tmp_path: Path, names: list[bytes]
) -> None:
    web.files.update(dict.fromkeys(names, b"evil"))
    (tmp_path / "here").mkdir()
    assert main(["cp", "web:/*", str(tmp_path / "here")]) == Exit.USAGE
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_nothing_that_matches_is_not_found(web: FakeMachine, tmp_path: Path) -> None:
    assert main(["cp", "web:/*.log", str(tmp_path)]) == Exit.NOT_FOUND
    assert web.calls[-1] == ("glob", b"/*.log")


@pytest.mark.parametrize("line", ["web:/a db:/b .", "web:/a x ."])
@pytest.mark.usefixtures("controller")
def test_all_sources_are_in_one_place(line: str) -> None:
    assert main(["cp", *line.split()]) == Exit.USAGE


@pytest.mark.parametrize("option", ["--resume", "--verify=sha256"])
def test_what_is_for_files_is_refused_for_folders(
    web: FakeMachine, folder: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "-r", option, str(folder), "web:/x"]) == Exit.USAGE
    assert "is for single files" in capsys.readouterr().err
    assert asked(web, "put_tree") == []


def test_json_tells_what_was_moved(
    web: FakeMachine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.report = TreeReport(3, 2, 1, 1000, ("pipe",), 4, (("send", "a"), ("remove", "b")))
    assert main(["sync", "--json", str(folder), "web:/srv"]) == Exit.OK
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told.pop("duration_s") >= 0
    assert told == {
        "source": str(folder),
        "destination": "web:/srv",
        "files": 3,
        "folders": 2,
        "links": 1,
        "size_bytes": 1000,
        "unchanged": 4,
        "changes": [["send", "a"], ["remove", "b"]],
        "skipped": ["pipe"],
    }
    assert said.err == f"hostctl: {folder}: pipe was left out\n"


def test_a_dry_run_prints_what_would_be_done(
    web: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.report = TreeReport(1, 0, 0, 5, changes=(("send", "a"), ("remove", "b")))
    assert main(["sync", "-n", "--delete", "web:/srv", str(tmp_path)]) == Exit.OK
    assert capsys.readouterr().out == "send a\nremove b\n"
    ((source, target, how),) = asked(web, "sync_from")
    assert (source, target) == (b"/srv", str(tmp_path))
    assert isinstance(how, dict)
    assert (how["delete"], how["dry_run"], how["checksum"]) == (True, True, False)


@pytest.mark.parametrize("line", ["a b", "web:/a db:/b"])
@pytest.mark.usefixtures("controller")
def test_a_sync_has_one_end_in_a_machine(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", *line.split()]) == Exit.USAGE
    assert "hostctl: sync: " in capsys.readouterr().err


def test_progress_for_programs_is_a_json_object_a_line(
    web: FakeMachine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hostctl.cli.progress import JsonMeter

    with JsonMeter("x", None) as meter:
        meter._told -= 1
        meter(50, 100)
    first, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["moved_bytes"], first["total_bytes"]) == ("progress", 50, 100)
    assert first["rate_bytes_s"] > 0
    assert first["eta_s"] is not None
    assert last["event"] == "done"
    assert main(["cp", "--progress", "json", str(folder / "file"), "web:/x"]) == Exit.OK
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["name"], line["moved_bytes"]) == ("done", "file", 7)


def test_a_failed_transfer_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    from hostctl.cli.progress import JsonMeter, TreeMeter

    def fail() -> None:
        with JsonMeter("x", 10) as meter:
            TreeMeter(meter)(Moved(5, 20))
            raise OSError(5, "broke")

    with pytest.raises(OSError, match="broke"):
        fail()
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["moved_bytes"], told["total_bytes"]) == ("failed", 5, 20)
