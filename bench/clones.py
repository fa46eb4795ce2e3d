#!/usr/bin/env python3
"""How soon a machine answers: booted, and cloned from a template, by turns in one run.

    .venv/bin/python -m bench.clones [ROUNDS]

Writes results/clones.md. The last part starts twenty clones at once, and weighs them.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home

from . import host
from .samples import Samples, Spread

PING, EXEC, RUN = "first ping answered", "first exec's result", "`hostctl run`, whole process"
_SPEC: Final = MachineSpec("any", image="tiny", accel="tcg")
_MANY: Final = 20
_TEMPLATE: Final = "t"


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    hostctl_images.build("tiny")
    samples, before = Samples(), host.load()
    many = asyncio.run(_measure(samples, rounds))
    text = _report(samples, many, f"{rounds} rounds; load before {before}, after {host.load()}")
    (Path(__file__).parent / "results" / "clones.md").write_text(text)
    print(text)


async def _measure(samples: Samples, rounds: int) -> tuple[float, list[int]]:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        home = Home(Path(name) / "s", Path(name) / "r")
        async with Controller(home) as controller:
            await controller.create_template(_TEMPLATE, _SPEC)
            for _ in range(rounds):
                await _race(samples, "boot", lambda: _booted(controller))
                await _race(samples, "clone", lambda: controller.clone(_TEMPLATE, "m"))
                samples.add(RUN, "clone", "ms", [await _process(home)])
            return await _many(controller)


async def _booted(controller: Controller) -> Machine:
    machine = await controller.create(MachineSpec("m", image="tiny", accel="tcg"))
    await machine.start()
    return machine


async def _race(samples: Samples, who: str, make: Callable[[], Awaitable[Machine]]) -> None:
    begin = time.perf_counter()
    machine = await make()
    try:
        await machine.ping()
        samples.add(PING, who, "ms", [(time.perf_counter() - begin) * 1e3])
        await machine.exec("/bin/true", check=True)
        samples.add(EXEC, who, "ms", [(time.perf_counter() - begin) * 1e3])
    finally:
        await machine.delete(force=True)


async def _process(home: Home) -> float:
    argv = [sys.executable, "-m", "hostctl", "run", _TEMPLATE, "--", "true"]
    environ = os.environ | {
        "HOSTCTL_STATE_DIR": str(home.state),
        "HOSTCTL_RUNTIME_DIR": str(home.runtime),
    }
    begin = time.perf_counter()
    await asyncio.to_thread(subprocess.run, argv, env=environ, check=True)
    return (time.perf_counter() - begin) * 1e3


async def _many(controller: Controller) -> tuple[float, list[int]]:
    """Return the seconds until twenty clones answer, and the private bytes of each when idle."""
    begin = time.perf_counter()
    names = [f"m{number}" for number in range(_MANY)]
    clones = await asyncio.gather(*(controller.clone(_TEMPLATE, name) for name in names))
    took_s = time.perf_counter() - begin
    await asyncio.sleep(2)
    weights = [_private((await clone._backend.describe()).pid or 0) for clone in clones]
    await asyncio.gather(*(clone.delete(force=True) for clone in clones))
    return took_s, weights


def _private(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+: +(\d+) kB$", text, re.M)) * 1024


def _report(samples: Samples, many: tuple[float, list[int]], how: str) -> str:
    rows = []
    for task, who, series in samples:
        spread = series.spread
        rows.append(f"| {task} | {who} | {_shown(spread)} ms |")
    took_s, weights = many
    return "\n".join(
        (
            "# How soon a machine answers",
            "",
            f"Image `tiny`, 256 MiB, TCG, 1 vCPU; {how}. Written by `python -m bench.clones`.",
            "",
            "| until | by | median (range) |",
            "|---|---|--:|",
            *rows,
            "",
            "| what | is | must be |",
            "|---|--:|--:|",
            f"| clone to boot, first ping | {_ratio(samples, PING)} | ≤ 0.067 |",
            f"| clone to boot, first exec | {_ratio(samples, EXEC)} | ≤ 0.125 |",
            f"| `hostctl run` | {samples.median(RUN, 'clone'):.0f} ms | ≤ 600 ms |",
            f"| {_MANY} clones, all answering | {took_s:.1f} s | ≤ 4 s |",
            f"| private memory of an idle clone | {max(weights) / 2**20:.0f} MiB | ≤ 45 MB |",
            "",
        )
    )


def _ratio(samples: Samples, task: str) -> str:
    ratio = samples.ratio(task, "clone", "boot")
    return f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})"


def _shown(spread: Spread) -> str:
    return f"{spread.median:.0f} ({spread.least:.0f} to {spread.most:.0f})"


if __name__ == "__main__":
    main()
