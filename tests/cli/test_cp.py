"""What the two words of `cp` mean, and what lands where."""

import json
import os
from pathlib import Path

import pytest

from hostctl.cli import cp
from hostctl.cli.exits import Exit, UsageError
from hostctl.cli.main import main
from hostctl_channels.interface import FileInfo

from .descriptors import stdin_from, stdin_of
from .fakes import FakeMachine


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/tmp/x", cp.Place("web", "/tmp/x")),
        ("a.b-1:rel", cp.Place("a.b-1", "rel")),
        ("web:a:b\nc", cp.Place("web", "a:b\nc")),
        ("./web:x", cp.Place(None, "./web:x")),
        ("/a:b", cp.Place(None, "/a:b")),
        ("-", cp.Place(None, "-")),
        ("-x:y", cp.Place(None, "-x:y")),
        ("file", cp.Place(None, "file")),
    ],
)
def test_a_colon_before_any_slash_makes_a_machine(text: str, place: cp.Place) -> None:
    assert cp.parse_place(text) == place


@pytest.mark.parametrize("text", ["", "web:"])
def test_a_place_names_a_file(text: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        cp.parse_place(text)


@pytest.mark.parametrize("line", ["a b", "web:/a db:/b", "- -"])
@pytest.mark.usefixtures("controller")
def test_one_end_is_in_a_machine(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", *line.split()]) == Exit.USAGE
    assert "hostctl: cp: " in capsys.readouterr().err


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local file."""
    path = tmp_path / "local file"
    path.write_bytes(b"content")
    path.chmod(0o640)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.mark.parametrize(
    ("destination", "landed"),
    [
        ("/x", b"/x"),
        ("/srv/", b"/srv/local file"),
        ("/tmp", b"/tmp/local file"),
        ("-strange", b"-strange"),
    ],
)
def test_put_lands_by_name_or_in_a_folder(
    web: FakeMachine, local: Path, destination: str, landed: bytes
) -> None:
    web.folders.add(b"/tmp")
    assert main(["cp", str(local), f"web:{destination}"]) == Exit.OK
    assert web.files == {landed: b"content"}


def test_put_passes_on_what_was_asked_for(web: FakeMachine, local: Path) -> None:
    main(["cp", str(local), "web:/x", "--verify", "sha256", "-p"])
    main(["cp", str(local), "web:/x", "-p", "--mode", "0600"])
    main(["cp", str(local), "web:/x"])
    asked = [how for _, how in web.calls]
    plain = {"mode": None, "mtime_s": None, "verify": None, "resume": False}
    assert asked == [
        (b"/x", plain | {"mode": 0o640, "mtime_s": 1e9, "verify": "sha256", "resume": False}),
        (b"/x", plain | {"mode": 0o600, "mtime_s": 1e9}),
        (b"/x", plain),
    ]


@pytest.mark.parametrize(
    ("destination", "landed"), [("new", "new"), (".", "remote"), ("there/", "there/remote")]
)
def test_get_lands_by_name_or_in_a_folder(
    web: FakeMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
    landed: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    web.files[b"/etc/remote"] = b"from inside"
    assert main(["cp", "web:/etc/remote", destination]) == Exit.OK
    assert (tmp_path / landed).read_bytes() == b"from inside"


@pytest.mark.parametrize("source", ["web:/etc/", "web:/etc/..", "web:."])
def test_get_never_leaves_the_folder_it_was_given(
    web: FakeMachine, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", source, str(tmp_path)]) == Exit.USAGE
    assert list(tmp_path.iterdir()) == []
    assert "is a folder" in capsys.readouterr().err
    assert web.calls == []


def test_a_missing_folder_is_not_invented(
    web: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files[b"/f"] = b""
    assert main(["cp", "web:/f", f"{tmp_path}/none/"]) == Exit.NOT_FOUND
    assert "no such folder" in capsys.readouterr().err


def test_get_may_keep_attributes_but_gives_no_guest_a_setuid_file(
    web: FakeMachine, tmp_path: Path
) -> None:
    web.files[b"/f"] = b""
    web.info = FileInfo(0, mode=0o6755, mtime_s=1e9)
    assert main(["cp", "-p", "web:/f", str(tmp_path)]) == Exit.OK
    found = (tmp_path / "f").stat()
    assert (found.st_mode & 0o7777, found.st_mtime) == (0o755, 1e9)


def test_standard_streams(
    web: FakeMachine, local: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with local.open("rb") as file, stdin_from(file.fileno()):
        assert main(["cp", "-", "web:/x"]) == Exit.OK
    assert web.files[b"/x"] == b"content"
    assert main(["cp", "web:/x", "-"]) == Exit.OK
    assert capfdbinary.readouterr().out == b"content"


def test_a_pipe_is_read_to_its_end_first(web: FakeMachine) -> None:
    with stdin_of(b"piped"):
        assert main(["cp", "-", "web:/x"]) == Exit.OK
    assert web.files[b"/x"] == b"piped"


def test_standard_input_needs_a_name(
    web: FakeMachine, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with local.open("rb") as file, stdin_from(file.fileno()):
        assert main(["cp", "-", "web:/srv/"]) == Exit.USAGE
    assert "standard input has no name" in capsys.readouterr().err
    assert web.files == {}


@pytest.mark.parametrize("line", ["{folder} web:/x", "web:/folder {folder}/y"])
def test_a_folder_is_refused_with_the_way_to_do_it(
    web: FakeMachine, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    web.folders.add(b"/folder")
    assert main(["cp", *line.format(folder=tmp_path).split()]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "is a folder; copy it with -r" in said


def test_a_missing_source_is_not_found(
    web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "/no/such file", "web:/x"]) == Exit.NOT_FOUND
    assert capsys.readouterr().err == "hostctl: no such file or directory: /no/such file\n"
    assert main(["cp", "web:/none", "x"]) == Exit.NOT_FOUND
    assert web.calls[-1][0] == "get"


def test_json_tells_what_was_copied(
    web: FakeMachine, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.info = FileInfo(7, sha256="ab" * 32)
    assert main(["cp", "--json", "--verify", "sha256", str(local), "web:/srv/"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told.pop("duration_s") >= 0
    assert told == {
        "source": str(local),
        "destination": "web:/srv/local file",
        "size_bytes": 7,
        "sha256": "ab" * 32,
        "mode": None,
        "mtime_s": None,
    }
