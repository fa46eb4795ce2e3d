"""What "Test your software in a VM in five minutes" says, done."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_readme import console, matches

from .user import User

pytestmark = pytest.mark.vm

HOWTO = Path(__file__).parents[2] / "docs/how-to/test-in-a-vm.md"
FENCE = re.compile(r"<!-- (run|file: (\S+)) -->\n```\w+\n(.*?)```", re.DOTALL)


def test_the_howto_does_what_it_says(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = user.pytester.path
    _command(folder / "bin" / "pytest", monkeypatch)
    fences = FENCE.findall(HOWTO.read_text())
    assert [kind for kind, _, _ in fences].count("run") == 3
    for _, name, text in fences:
        if name:
            (folder / name).write_text(text)
            continue
        for step in console(text):
            done = subprocess.run(
                ["bash", "-c", step.command],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=200,
            )
            assert matches(step.expected, done.stdout), f"$ {step.command}\n{done.stdout}"
            assert done.returncode == 0, done.stdout


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", HOWTO.read_text())
    assert [link for link in links if not (HOWTO.parent / link).exists()] == []


def _command(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a `pytest` without plugins that print lines of their own."""
    script.parent.mkdir()
    words = [sys.executable, "-m", "pytest", "-pno:asyncio", "-pno:hypothesispytest"]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
