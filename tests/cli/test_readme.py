"""README's commands do what README says they do.

Fences after `<!-- run -->` are run, in order, in one empty folder and one home. `...` in the
expected output stands for anything on that line, and alone on a line for any lines.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"<!-- run -->\n```(\w+)\n(.*?)```", re.DOTALL)
RUN = "import sys; sys.argv[0] = 'hostctl'; from hostctl.cli.main import main; sys.exit(main())"


class Step(NamedTuple):
    """A command of README, and what it shall print, stdout and stderr together."""

    command: str
    expected: str


def steps() -> list[Step]:
    """Return the steps of all fences, in order."""
    return [
        step
        for language, text in FENCE.findall(README.read_text())
        for step in (console(text) if language == "console" else [python(text)])
    ]


def console(text: str) -> list[Step]:
    sessions = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [Step(*session.partition("\n")[::2]) for session in sessions]


def python(text: str) -> Step:
    """The sample's output is not in README, so that the sample stays short."""
    return Step(f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}", "...\n")


def matches(expected: str, shown: str) -> bool:
    pattern = re.escape(expected)
    pattern = re.sub(r"^\\\.\\\.\\\.\\?\n", r"(?:.*\n)*", pattern, flags=re.MULTILINE)
    return re.fullmatch(pattern.replace(r"\.\.\.", ".*"), shown) is not None


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """A home of its own, short enough for sockets, and `hostctl` on the path."""
    with tempfile.TemporaryDirectory(prefix="hostctl-readme-", dir="/tmp") as home:
        script = Path(home, "bin", "hostctl")
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{RUN}" "$@"\n')
        script.chmod(0o755)
        environ = os.environ | {
            "HOSTCTL_STATE_DIR": f"{home}/state",
            "HOSTCTL_RUNTIME_DIR": f"{home}/run",
            "PATH": f"{script.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        yield environ
        subprocess.run(["hostctl", "delete", "-f", "web", "job"], env=environ, check=False)


def test_readme_does_what_it_says(environ: dict[str, str], tmp_path: Path) -> None:
    todo = steps()
    assert len(todo) > 15, "the fences were not found"
    for step in todo:
        done = subprocess.run(
            ["bash", "-c", step.command],
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert matches(step.expected, done.stdout), f"$ {step.command}\n{done.stdout}"
        assert done.returncode == 0, step.command


@pytest.mark.parametrize(
    ("expected", "shown", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a ...\n", "a b c\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\n", "a\n", True),
        ("", "x\n", False),
    ],
)
def test_dots_stand_for_anything(expected: str, shown: str, same: bool) -> None:
    assert matches(expected, shown) == same


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
