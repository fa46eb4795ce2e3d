"""`hostctl run`: what goes in, what comes out, and nothing that stays."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hostctl.state import Home
from tests.homes import environment

pytestmark = pytest.mark.vm


async def hostctl(home: Home, *words: str) -> tuple[int, str]:
    """Return its exit code, and what it said on both streams."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "hostctl", *words],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


async def test_files_and_folders_go_in_and_out(template_home: Home, tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "script").write_text("echo $1 >made; mkdir out; cp made out; exit 7")
    (source / "sub" / "script").chmod(0o755)
    (tmp_path / "file").write_bytes(b"one")
    words = ["-v", f"{source}:/srv/new/src", "--put", f"{tmp_path}/file:/srv/file"]
    words += ["--get", f"/srv/new/src/made:{tmp_path}/made"]
    words += ["--get", f"/srv/new/src/out:{tmp_path}/out", "-w", "/srv/new/src"]
    line = "./sub/script $(cat /srv/file)"
    code, said = await hostctl(template_home, "run", *words, "base", "--", "sh", "-c", line)
    assert (code, said) == (7, "")
    assert (tmp_path / "made").read_text() == "one\n"
    assert (tmp_path / "out" / "made").read_text() == "one\n"
    assert template_home.names() == ()


async def test_what_cannot_come_out_is_told_and_nothing_stays(
    template_home: Home, tmp_path: Path
) -> None:
    words = ["--get", f"/nothing:{tmp_path}/x"]
    code, said = await hostctl(template_home, "run", *words, "base", "--", "true")
    assert code == 125
    assert "/nothing" in said
    assert template_home.names() == ()


async def test_two_at_once_do_not_meet(template_home: Home) -> None:
    line = "test ! -e /tmp/mark && touch /tmp/mark && sleep 1 && echo alone"
    runs = (hostctl(template_home, "run", "base", "--", "sh", "-c", line) for _ in range(2))
    assert await asyncio.gather(*runs) == [(0, "alone\n")] * 2
