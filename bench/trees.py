#!/usr/bin/env python3
"""Many small files: one tree against one request for each, both ways, and a sync of what changed.

    .venv/bin/python -m bench.trees [ROUNDS]

One machine under TCG, files of 1 KiB into a tmpfs. Writes trees.md into results/.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
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

FILES: Final = 2000
SINGLE: Final = 200  # of these, one by one; the rest would take as long each
FOLDER: Final = "/run/bench"
LEAST_TIMES: Final = 20
LEAST_RATE: Final = 500
_RESULTS: Final = Path(__file__).parent / "results"

Rates = dict[str, list[float]]


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    hostctl_images.build("tiny")
    before = host.load()
    facts, rates = asyncio.run(_measure(rounds))
    facts = {"rounds": rounds, "load_before": before, **facts, "load_after": host.load()}
    text = _report(rates, facts)
    (_RESULTS / "trees.md").write_text(text)
    print(text)


async def _measure(rounds: int) -> tuple[dict[str, object], Rates]:
    rates: Rates = {}
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        folder = Path(name)
        source = _files(folder / "source")
        async with Controller(Home(folder / "s", folder / "r")) as controller:
            spec = MachineSpec("trees", image="tiny", accel="tcg")
            machine = await controller.create(spec)
            try:
                await machine.start()
                await machine.shell(f"mkdir {FOLDER} && mount -t tmpfs t {FOLDER}", check=True)
                for number in range(rounds):
                    print(f"round {number + 1} of {rounds}", file=sys.stderr)
                    await _round(machine, source, folder, rates)
                facts: dict[str, object] = dict(await host.describe(machine, "tiny"))
            finally:
                await machine.delete(force=True)
    return facts, rates


def _files(folder: Path) -> Path:
    for number in range(FILES):
        path = folder / f"{number % 20}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1024))
    return folder


def _paths(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.is_file())


async def _round(machine: Machine, source: Path, folder: Path, rates: Rates) -> None:
    paths = _paths(source)
    got = folder / "got"
    await machine.shell(f"rm -rf {FOLDER}/*; mkdir {FOLDER}/single", check=True)
    single = paths[:SINGLE]

    async def put_single() -> None:
        for path in single:
            await machine.put(path, f"{FOLDER}/single/{path.name}")

    async def exec_single() -> None:
        for path in single:
            target = f"{FOLDER}/single/{path.name}"
            await machine.exec("dd", f"of={target}", input=path.read_bytes(), check=True)

    async def cat_single() -> None:
        for path in single:
            done = await machine.exec("cat", f"{FOLDER}/single/{path.name}", check=True)
            (got / path.name).write_bytes(done.stdout)

    async def get_single() -> None:
        for path in single:
            await machine.get(f"{FOLDER}/single/{path.name}", got / path.name)

    async def sync() -> None:
        await machine.sync_to(source, f"{FOLDER}/tree")

    got.mkdir()
    await _time(rates, "put, one by one", SINGLE, put_single)
    await _time(rates, "exec with input, one by one", SINGLE, exec_single)
    await _time(rates, "exec cat, one by one", SINGLE, cat_single)
    await _time(rates, "get, one by one", SINGLE, get_single)
    shutil.rmtree(got)
    await _time(rates, "put_tree", FILES, lambda: machine.put_tree(source, f"{FOLDER}/tree"))
    await _time(rates, "get_tree", FILES, lambda: machine.get_tree(f"{FOLDER}/tree", got))
    same = all((got / p.relative_to(source)).read_bytes() == p.read_bytes() for p in paths)
    if not same:
        raise AssertionError("what came back is not what was put")
    shutil.rmtree(got)
    await _time(rates, "sync_to, nothing changed", FILES, sync)
    for path in paths[:: len(paths) // 20]:
        path.write_bytes(os.urandom(1024))
    await _time(rates, "sync_to, one in a hundred changed", FILES, sync)


async def _time(rates: Rates, what: str, files: int, work: Callable[[], Awaitable[object]]) -> None:
    begin = time.perf_counter()
    await work()
    rates.setdefault(what, []).append(files / (time.perf_counter() - begin))


def _report(rates: Rates, facts: dict[str, object]) -> str:
    rows = [
        f"| {what} | {statistics.median(each):.0f} | {min(each):.0f} to {max(each):.0f} |"
        for what, each in rates.items()
    ]
    return "\n".join(
        (
            "# Many small files",
            "",
            f"Written by `python -m bench.trees`. {FILES} files of 1 KiB in 20 folders, a tmpfs in",
            f"the guest. One by one only {SINGLE} of them. Medians of the rounds, and their range.",
            "",
            *(f"* {key}: {value}" for key, value in facts.items()),
            "",
            "| what | files/s | rounds |",
            "|---|--:|--:|",
            *rows,
            "",
            "| promise | is | must be |",
            "|---|--:|--:|",
            *_promises(rates),
            "",
        )
    )


def _promises(rates: Rates) -> list[str]:
    def times(tree: str, single: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[tree], rates[single], strict=True))

    pairs = (
        ("put_tree", "put, one by one"),
        ("put_tree", "exec with input, one by one"),
        ("get_tree", "exec cat, one by one"),
    )
    rows = [
        f"| {tree} as fast as {single} | {times(tree, single):.1f} times | ≥ {LEAST_TIMES} |"
        for tree, single in pairs
    ]
    slowest = min(statistics.median(rates["put_tree"]), statistics.median(rates["get_tree"]))
    return [*rows, f"| files/s of trees, both ways | {slowest:.0f} | ≥ {LEAST_RATE} |"]


if __name__ == "__main__":
    main()
