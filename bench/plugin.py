#!/usr/bin/env python3
"""What a machine for each test costs: a hundred tests that each run one command, whole pytest runs.

    .venv/bin/python -m bench.plugin [ROUNDS]

In turns: a fresh clone for each test, by one process and by two workers of pytest-xdist; one
machine rolled back before each; one machine for all. Writes plugin.md into results/.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import hostctl_images
from hostctl.controller import Controller
from hostctl.state import Home
from hostctl_images.image import cache_folder

from . import host
from .samples import Samples

TESTS: Final = 100
LIMIT_S: Final = 60
FRESH: Final = "`vm`: a fresh machine each"
_RUNS: Final = {
    FRESH: ("vm",),
    "the same, two workers (`-n2`)": ("vm", "-n2"),
    "`vm_rollback`: one, rolled back": ("vm_rollback",),
    "`vm_session`: one, as it is": ("vm_session",),
}
_TEST: Final = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_exec({fixture}, number):
    {fixture}.exec("/bin/true", check=True)
"""


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    hostctl_images.build("tiny")
    samples, before = Samples(), host.load()
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        home = Home(Path(name, "s"), Path(name, "r"))
        facts = asyncio.run(_template(home))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for what, (fixture, *words) in _RUNS.items():
                samples.add(what, "pytest", "s", [_run(home, Path(name), fixture, *words)])
    facts = {"rounds": rounds, "load_before": before, **facts, "load_after": host.load()}
    text = _report(samples, facts)
    (Path(__file__).parent / "results" / "plugin.md").write_text(text)
    print(text)


async def _template(home: Home) -> dict[str, object]:
    """Make the template that the runs find, and look at a clone of it."""
    async with Controller(home) as controller:
        begin = time.perf_counter()
        found = await controller.template_of("tiny")
        took_s = time.perf_counter() - begin
        machine = await controller.clone(found.name, "look")
        try:
            facts = dict(await host.describe(machine, "tiny"))
        finally:
            await machine.delete(force=True)
    return {**facts, "template_s": round(took_s, 1)}


def _run(home: Home, folder: Path, fixture: str, *words: str) -> float:
    """Return the seconds of a whole pytest process."""
    script = folder / f"test_{fixture}.py"
    script.write_text(_TEST.format(tests=TESTS, fixture=fixture))
    environ = os.environ | {
        "HOSTCTL_STATE_DIR": str(home.state),
        "HOSTCTL_RUNTIME_DIR": str(home.runtime),
        "HOSTCTL_CACHE_DIR": str(cache_folder()),
    }
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, script.name]
    begin = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True)
    took_s = time.perf_counter() - begin
    if f"{TESTS} passed" not in done.stdout:
        raise AssertionError(done.stdout + done.stderr)
    return took_s


def _report(samples: Samples, facts: dict[str, object]) -> str:
    rows = []
    for what, _, series in samples:
        spread = series.spread
        shown = f"{spread.median:.1f} ({spread.least:.1f} to {spread.most:.1f}) s"
        rows.append(f"| {what} | {shown} | {spread.median / TESTS * 1000:.0f} ms |")
    return "\n".join(
        (
            "# A machine for each test",
            "",
            f"Written by `python -m bench.plugin`. {TESTS} tests that each run one command;",
            "the whole pytest process, with the template ready. Medians of the rounds, and their",
            "range. Believe the ratios: look at the load.",
            "",
            *(f"* {key}: {value}" for key, value in facts.items()),
            "",
            "| machines | pytest | a test |",
            "|---|--:|--:|",
            *rows,
            "",
            "| promise | is | must be |",
            "|---|--:|--:|",
            f"| {TESTS} tests, a fresh machine each | {samples.median(FRESH, 'pytest'):.0f} s "
            f"| ≤ {LIMIT_S} s |",
            "",
        )
    )


if __name__ == "__main__":
    main()
