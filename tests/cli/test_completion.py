"""Completion scripts: each shell reads its own, and completes machines from the state directory."""

import subprocess
from pathlib import Path

import pytest

from hostctl.cli.arguments import SHELLS
from hostctl.cli.main import COMMANDS, main

ASK_BASH = """
source "$1"
COMP_WORDS=(hostctl show w); COMP_CWORD=2; COMP_LINE="hostctl show w"; COMP_POINT=14
_shtab_hostctl 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""

READERS = [pytest.param(shell, marks=pytest.mark.needs(shell)) for shell in SHELLS]


@pytest.fixture
def script(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The script of the shell that the test is for."""
    assert main(["completion", request.param]) == 0
    path = tmp_path / f"hostctl.{request.param}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with two machines."""
    for name in ("web", "db-1.2"):
        (tmp_path / "state/machines" / name).mkdir(parents=True)
    monkeypatch.setenv("HOSTCTL_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", READERS, indirect=True)
def test_the_shell_can_read_its_script(script: Path) -> None:
    run(script.suffix[1:], "-n", str(script))
    text = script.read_text()
    assert all(command.first in text for command in COMMANDS)


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_machines(script: Path) -> None:
    assert run("bash", "-c", ASK_BASH, "bash", str(script)).split() == ["web"]


@pytest.mark.needs("fish")
@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes_machines(script: Path) -> None:
    said = run("fish", "-c", f"source {script}; complete -C 'hostctl show '")
    assert {line.split("\t")[0] for line in said.splitlines()} >= {"web", "db-1.2"}
