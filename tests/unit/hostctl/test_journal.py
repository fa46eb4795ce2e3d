"""The journal: written by many processes, read by each at its own pace, never too long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hostctl import journal
from hostctl.journal import Event, Journal


def kinds(reader: Journal) -> list[str]:
    return [event.kind for event in reader.read()]


def test_a_reader_hears_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer, reader = Journal(path), Journal(path)
    assert kinds(reader) == []
    writer.note("web", "started", tag="t", size=3)
    writer.note("web", "stopped")
    (first, second) = reader.read()
    assert (first.machine, first.kind, first.detail) == ("web", "started", {"tag": "t", "size": 3})
    assert (second.kind, second.detail) == ("stopped", {})
    assert kinds(reader) == []
    late = Journal(path)
    late.skip()
    writer.note("web", "deleted")
    assert kinds(late) == kinds(reader) == ["deleted"]


def test_what_a_crash_or_a_stranger_left_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = Journal(path)
    path.write_bytes(
        b'no json\n[1]\n{"machine": "a"}\n{"machine": "a", "event": "x", "time_s": 1}\n{"mach'
    )
    assert list(reader.read()) == [Event("a", "x", 1.0)]
    with path.open("ab") as file:
        file.write(b'ine": "b", "event": "y", "time_s": 2}\n')
    assert list(reader.read()) == [Event("b", "y", 2.0)]


def test_it_is_put_aside_when_full_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 2000)
    path = tmp_path / "events.jsonl"
    writer, reader = Journal(path), Journal(path)
    heard = []
    for number in range(200):
        writer.note("web", f"k{number}")
        if number % 7 == 0:
            heard += kinds(reader)
    heard += kinds(reader)
    assert heard == [f"k{number}" for number in range(200)]
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 5000


def test_a_long_detail_is_left_out(tmp_path: Path) -> None:
    writer, reader = Journal(tmp_path / "e.jsonl"), Journal(tmp_path / "e.jsonl")
    writer.note("web", "put", path="x" * 10_000)
    assert [event.detail for event in reader.read()] == [{}]


def test_an_act_does_not_fail_for_it(tmp_path: Path) -> None:
    Journal(tmp_path / "no such folder" / "e.jsonl").note("web", "started")


def test_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = (
        "import sys; from pathlib import Path; from hostctl.journal import Journal\n"
        "[Journal(Path(sys.argv[1])).note(sys.argv[2], 'x', n=n) for n in range(300)]"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "abcd"]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for name in "abcd":
        mine = [event["detail"]["n"] for event in events if event["machine"] == name]
        assert mine == list(range(300))


def test_the_last_act_before_it_is_put_aside_is_heard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    writer, reader = Journal(path), Journal(path)
    writer.note("web", "started")
    assert kinds(reader) == ["started"]
    monkeypatch.setattr(journal, "MAX_BYTES", 1)
    writer.note("web", "stopped")
    assert not path.exists()
    assert kinds(reader) == ["stopped"]
    writer.note("web", "deleted")
    assert kinds(reader) == ["deleted"]
