"""The command line on many real agents: jobs by pattern, output, files, tags, in one process."""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostctl.cli.main import main
from hostctl.state import Home
from tests.fleet import Fleet

pytestmark = [pytest.mark.needs("dash"), pytest.mark.timeout(120)]

NAMES = [f"vm.{rack}.{number}" for rack in range(4) for number in range(10)]


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="hf-") as root, pytest.MonkeyPatch.context() as patch:
        Path(root).chmod(0o755)
        home = Home(Path(root) / "s", Path(root) / "r")
        patch.setenv("HOSTCTL_STATE_DIR", str(home.state))
        patch.setenv("HOSTCTL_RUNTIME_DIR", str(home.runtime))
        ships = Fleet(home)
        with ships.installed():
            asyncio.run(ships.create(NAMES, tags=("ci",)))
            yield home
            ships.hang_up()


def test_forty_machines_answer_line_by_line(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "@ci", "--", "sh", "-c", "echo one; echo two; echo bad >&2"]) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == sorted(f"{n}: {t}" for n in NAMES for t in ("one", "two"))
    assert sorted(err.splitlines()) == sorted(f"{n}: bad" for n in NAMES)


def test_long_output_of_several_is_never_mixed(
    home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    line = "i=0; while [ $i -lt 2000 ]; do echo line $i of many, and then some; i=$((i+1)); done"
    assert main(["exec", "--shell", "vm.0.*", "--", line]) == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 20_000
    for name in NAMES[:10]:
        mine = [said for said in out.splitlines() if said.startswith(f"{name}: ")]
        assert mine == [f"{name}: line {i} of many, and then some" for i in range(2000)]


def test_jobs_of_a_group_from_start_to_end(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(["exec", "-d", "vm.1.*", "--", "sh", "-c", "echo hello; sleep 1; exit 4"]) == 0
    ids = capfd.readouterr().out.split()
    assert sorted(id.partition("/")[0] for id in ids) == NAMES[10:20]
    assert time.monotonic() - began < 30
    assert main(["jobs", "-q", "vm.1.*"]) == 0
    assert sorted(capfd.readouterr().out.split()) == sorted(ids)
    assert main(["wait", "--json", "vm.1.*/*"]) == 4
    *ends, summary = map(json.loads, capfd.readouterr().out.splitlines())
    assert {end["job"] for end in ends} == set(ids)
    assert (summary["jobs"], summary["failed"], summary["code"]) == (10, 10, 4)
    assert main(["logs", "vm.1.*/*"]) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(f"{id}: hello" for id in ids)
    assert main(["logs", "--json", ids[0]]) == 0
    (event,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert event == {"event": "output", "name": ids[0], "stream": "stdout", "text": "hello\n"}
    assert main(["signal", "vm.1.*/*", "TERM"]) == 0, "quiet when they have ended"
    assert main(["forget", *ids[:5]]) == 0
    assert main(["forget", "vm.1.*/*"]) == 0
    capfd.readouterr()
    assert main(["forget", "vm.1.*/*"]) == 3
    assert "no job matches 'vm.1.*/*'" in capfd.readouterr().err
    assert main(["forget", "--allow-empty", "vm.1.*/*"]) == 0


def test_a_running_job_of_each_is_signalled(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "-d", "vm.2.[0-3]", "--", "sleep", "60"]) == 0
    capfd.readouterr()
    assert main(["signal", "vm.2.*/*", "sigterm"]) == 0
    assert main(["wait", "--timeout", "20s", "vm.2.*/*"]) == 143
    assert main(["forget", "vm.2.*/*"]) == 0


@pytest.mark.parametrize("word", ["@ci/@x", "vm.0.0", "vm.0.0/"])
def test_what_is_no_job_is_refused(home: Home, word: str) -> None:
    assert main(["forget", word]) == 2


def test_a_file_to_all_and_back(home: Home, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    assert main(["cp", str(tmp_path / "in"), f"vm.3.*:{home.state}/landed"]) == 0
    assert main(["cp", f"vm.3.*:{home.state}/landed", f"{tmp_path}/out"]) == 0
    found = sorted(path.parent.name for path in (tmp_path / "out").glob("*/landed"))
    assert found == NAMES[30:]
    assert {p.read_bytes() for p in (tmp_path / "out").glob("*/*")} == {b"x" * 100_000}
