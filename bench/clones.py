#!/usr/bin/env python3
"""How soon a machine answers: booted, cloned from a template, handed out by a pool; in one run.

    .venv/bin/python -m bench.clones [ROUNDS]

Writes results/clones.md and .svg. What QEMU alone needs is measured beside it: to come to its first
word with no devices at all, to do so with a clone's, and to read the devices' state. The last part
starts twenty clones at once, and weighs them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.backends.qemu.backend import QemuBackend
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home

from . import chart, host
from .samples import Samples

PING, EXEC, RUN = "first ping answered", "first exec's result", "`hostctl run`, whole process"
HAND_OUT, GREETING, STATE, FRESH = (
    "hand-out of a pool",
    "QEMU's greeting, of a clone",
    "devices' state read",
    "answer, clock and random pool",
)
BOOT, CLONE, POOL, QEMU = "boot", "clone", "pool", "qemu alone"
_SPEC: Final = MachineSpec("any", image="tiny", accel="tcg")
_MANY: Final = (5, 10, 20)
_POOL: Final = 2
_TAKES: Final = 5  # in each round
_TEMPLATE: Final = "t"
_SETTLE_S: Final = 2.0
_RESULTS: Final = Path(__file__).parent / "results"

Weights = dict[int, tuple[float, list[int]]]  # of that many clones: seconds, private bytes of each


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    hostctl_images.build("tiny")
    samples, before = Samples(), host.load()
    facts, weights = asyncio.run(_measure(samples, rounds))
    facts = {"rounds": rounds, "load_before": before, **facts, "load_after": host.load()}
    text = _report(samples, weights, facts)
    (_RESULTS / "clones.md").write_text(text)
    caption = f"{facts['cpu']}, {facts['qemu'].split(' (')[0]}, TCG, 1 vCPU, 256 MiB"
    chart.draw_clones(samples, (PING, EXEC), (BOOT, CLONE, POOL), _RESULTS / "clones.svg", caption)
    print(text)


async def _measure(samples: Samples, rounds: int) -> tuple[dict[str, Any], Weights]:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        home = Home(Path(name) / "s", Path(name) / "r")
        async with Controller(home) as controller:
            await controller.create_template(_TEMPLATE, _SPEC)
            for number in range(rounds):
                print(f"bench: round {number + 1} of {rounds}", file=sys.stderr)
                await _round(samples, controller, Path(name))
            weights = {many: await _many(controller, many) for many in _MANY}
            machine = await controller.clone(_TEMPLATE, "m")
            facts = await host.describe(machine, "tiny")
            await machine.delete(force=True)
            return facts, weights


async def _round(samples: Samples, controller: Controller, folder: Path) -> None:
    samples.add(GREETING, QEMU, "ms", [await asyncio.to_thread(_bare, folder / "bare")])
    for wait, task in ((False, PING), (True, EXEC)):  # a ping needs no clock and no random numbers
        samples.add(task, BOOT, "ms", [await _race(task, _booted(controller, wait=wait))])
        with _phases(samples) if wait else nullcontext():
            cloned = controller.clone(_TEMPLATE, "m", wait=wait)
            samples.add(task, CLONE, "ms", [await _race(task, cloned)])
    samples.add(RUN, CLONE, "ms", [await _process(controller.home)])
    async with _pool(controller):
        for task in (PING, EXEC):
            samples.add(task, POOL, "ms", await _takes(samples, controller, task))
        samples.add(RUN, POOL, "ms", [await _process(controller.home)])
        await controller.create_pool(_TEMPLATE, _POOL)


@asynccontextmanager
async def _pool(controller: Controller) -> AsyncIterator[None]:
    await controller.create_pool(_TEMPLATE, _POOL)
    try:
        yield
    finally:
        await controller.delete_pool(_TEMPLATE)


async def _booted(controller: Controller, *, wait: bool) -> Machine:
    machine = await controller.create(MachineSpec("m", image="tiny", accel="tcg"))
    await machine.start(wait=wait)
    return machine


async def _takes(samples: Samples, controller: Controller, task: str) -> list[float]:
    """Take several, for one takes no longer than a disturbance does."""
    times = []
    for _ in range(_TAKES):
        times.append(await _race(task, _taken(samples, controller)))
        await controller.create_pool(_TEMPLATE, _POOL)  # returns when it is full again
    return times


async def _taken(samples: Samples, controller: Controller) -> Machine:
    begin = time.perf_counter()
    machine = await controller.take(_TEMPLATE)
    samples.add(HAND_OUT, POOL, "ms", [_ms(begin)])
    return machine


async def _race(task: str, making: Awaitable[Machine]) -> float:
    """Return the milliseconds until a machine has done its task."""
    begin = time.perf_counter()
    machine = await making
    try:
        if task == PING:
            await machine.ping()
        else:
            await machine.exec("/bin/true", check=True)
        return _ms(begin)
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
    return _ms(begin)


def _bare(path: Path) -> float:
    """Return the milliseconds until a QEMU with no machine at all says its first word."""
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-S"]
    monitor = f"socket,id=m,path={path},server=on,wait=off"
    argv = ["qemu-system-x86_64", *words, "-chardev", monitor, "-mon", "chardev=m,mode=control"]
    begin = time.perf_counter()
    with subprocess.Popen(argv) as process:
        try:
            with connected(path) as line:
                assert "QMP" in json.loads(line.makefile().readline())
                return _ms(begin)
        finally:
            process.kill()
            path.unlink(missing_ok=True)


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Yield a connection to a socket that will be there soon."""
    with socket.socket(socket.AF_UNIX) as line:
        while True:
            try:
                line.connect(str(path))
                break
            except OSError:
                time.sleep(0.001)
        yield line


@contextmanager
def _phases(samples: Samples) -> Iterator[None]:
    """Measure a clone's steps too."""
    steps: tuple[tuple[type, str, str], ...] = (
        (QemuBackend, "_greet", GREETING),
        (QemuBackend, "_be_born", STATE),
        (Machine, "_refresh", FRESH),
    )
    was = [(owner, name, getattr(owner, name)) for owner, name, _ in steps]
    for owner, name, task in steps:
        setattr(owner, name, _timed(getattr(owner, name), samples, task))
    try:
        yield
    finally:
        for owner, name, method in was:
            setattr(owner, name, method)


def _timed(
    method: Callable[..., Awaitable[object]], samples: Samples, task: str
) -> Callable[..., Awaitable[object]]:
    async def timed(*args: object, **how: object) -> object:
        begin = time.perf_counter()
        value = await method(*args, **how)
        samples.add(task, CLONE, "ms", [_ms(begin)])
        return value

    return timed


async def _many(controller: Controller, count: int) -> tuple[float, list[int]]:
    """Return the seconds until that many clones answer, and the private bytes of each when idle."""
    begin = time.perf_counter()
    clones = await controller.clone_all(_TEMPLATE, [f"m{number}" for number in range(count)])
    took_s = time.perf_counter() - begin
    await asyncio.sleep(_SETTLE_S)
    weights = [_private((await clone.describe()).pid or 0) for clone in clones]
    await asyncio.gather(*(clone.delete(force=True) for clone in clones))
    return took_s, weights


def _private(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+: +(\d+) kB$", text, re.M)) * 1024


def _report(samples: Samples, weights: Weights, facts: dict[str, Any]) -> str:
    took_s, each = weights[_MANY[-1]]
    return "\n".join(
        (
            "# How soon a machine answers",
            "",
            "Image `tiny`, 256 MiB, 1 vCPU. Written by `python -m bench.clones`.",
            "",
            *(f"* {key}: {value}" for key, value in facts.items()),
            "",
            "| until | by | median (range) |",
            "|---|---|--:|",
            *(f"| {task} | {who} | {_shown(series.spread)} |" for task, who, series in samples),
            "",
            "| promise | is | must be |",
            "|---|--:|--:|",
            f"| clone to boot, first ping | {_ratio(samples, PING, CLONE)} | ≤ 0.067 |",
            f"| clone to boot, first exec | {_ratio(samples, EXEC, CLONE)} | ≤ 0.125 |",
            f"| pool to boot, first exec | {_ratio(samples, EXEC, POOL)} | ≤ 0.010 |",
            f"| hand-out of a pool | {samples.median(HAND_OUT, POOL):.0f} ms | ≤ 20 ms |",
            f"| `hostctl run` | {samples.median(RUN, CLONE):.0f} ms | ≤ 600 ms |",
            f"| {_MANY[-1]} clones, all answering | {took_s:.1f} s | ≤ 4 s |",
            f"| private memory of an idle clone | {max(each) / 1e6:.0f} MB | ≤ 45 MB |",
            "",
            "| clones | all answer after | private memory of all | of each |",
            "|--:|--:|--:|--:|",
            *map(_weight, weights.items()),
            "",
        )
    )


def _weight(of: tuple[int, tuple[float, list[int]]]) -> str:
    count, (took_s, each) = of
    mean = sum(each) / count / 1e6
    return f"| {count} | {took_s:.1f} s | {sum(each) / 1e6:.0f} MB | {mean:.1f} MB |"


def _ratio(samples: Samples, task: str, who: str) -> str:
    ratio = samples.ratio(task, who, BOOT)
    return f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})"


def _shown(spread: Any) -> str:
    return f"{spread.median:.0f} ({spread.least:.0f} to {spread.most:.0f}) ms"


def _ms(begin: float) -> float:
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    main()
