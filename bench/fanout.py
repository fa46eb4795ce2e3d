"""What one exec costs the controller itself, with few guests and with many.

    python -m bench.fanout [--execs N] [--rounds N] [--into FOLDER]

Each guest is the real agent under dash on a socketpair twin: no hypervisor, so that what is
measured is ours. The controller is a process of its own, for each number of guests a fresh one; the
cost is its CPU time (user and system), without the guests'. Its memory is what it has more (Pss)
when all guests are connected and idle.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hostctl.controller import Controller
from hostctl.group import Group
from hostctl.state import Home
from hostctl_channels import agent_channel
from tests.fleet import fleet

from .host import load

SIZES: Final = (1, 10, 100, 500)
MAX_RATIO: Final = 1.5  # of CPU per exec, from 10 guests to 500
MAX_KIB: Final = 300.0  # of memory per connected guest
PARALLEL: Final = (16, 64)
HERE: Final = Path(__file__).parent


def main() -> None:
    """Run it from the command line."""
    options = _options()
    if options.guests:
        print(json.dumps(asyncio.run(_measure(options.guests, options.execs))))
        return
    before = load()
    rows = [_row(size, options) for size in SIZES]
    text = _report(rows, options, before)
    (options.into / "fanout.md").write_text(text)
    print(text)


def _row(guests: int, options: argparse.Namespace) -> dict[str, float]:
    found = [_child(guests, options.execs) for _ in range(options.rounds)]
    return {"guests": guests} | {
        key: statistics.median(each[key] for each in found) for key in found[0]
    }


def _child(guests: int, execs: int) -> dict[str, float]:
    argv = [sys.executable, "-m", "bench.fanout", "--guests", str(guests), "--execs", str(execs)]
    done = subprocess.run(argv, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: {guests} guests: {done.stderr}")
    print(f"bench: {guests} guests: {done.stdout.strip()}", file=sys.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _measure(guests: int, execs: int) -> dict[str, float]:
    _raise_limit()
    # As long as it takes, so that all of them are connected at once; a second is meant for a loop.
    agent_channel._LINGER_S = 3600.0  # type: ignore[misc]
    names = [f"vm.{number}" for number in range(guests)]
    with tempfile.TemporaryDirectory(prefix="hb-") as root:
        home = Home(Path(root) / "s", Path(root) / "r")
        async with fleet(home, names) as controller:
            return await _with(controller, execs)


async def _with(controller: Controller, execs: int) -> dict[str, float]:
    machines = len(controller.select("vm.*"))
    (await controller.select("vm.0").exec("true")).check()  # all code is loaded
    gc.collect()
    before_kib = _pss_kib()
    (await controller.select("vm.*").ping()).check()
    gc.collect()
    found = {"kib": (_pss_kib() - before_kib) / max(1, machines - 1)}
    (await controller.select("vm.*").exec("true")).check()  # each guest has run one
    for parallel in PARALLEL:
        group = controller.select("vm.*", parallel=parallel)
        found[f"cpu_ms_{parallel}"] = await _cpu_ms(group, max(1, execs // machines))
    return found


async def _cpu_ms(group: Group, rounds: int) -> float:
    gc.collect()
    begin = _cpu_s()
    for _ in range(rounds):
        (await group.exec("true", check=True)).check()
    return (_cpu_s() - begin) / (rounds * len(group)) * 1000


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _pss_kib() -> int:
    found = re.search(r"^Pss:\s*(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1])


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def _report(rows: list[dict[str, Any]], options: argparse.Namespace, before: object) -> str:
    by_size = {row["guests"]: row for row in rows}
    head = ["guests", *(f"CPU ms per exec, {p} at once" for p in PARALLEL), "KiB per idle guest"]
    lines = [f"| {' | '.join(head)} |", f"|{'---:|' * len(head)}"]
    for row in rows:
        costs = [f"{row[f'cpu_ms_{parallel}']:.2f}" for parallel in PARALLEL]
        kib = "-" if row["guests"] == 1 else f"{row['kib']:.0f}"
        lines.append(f"| {' | '.join([str(row['guests']), *costs, kib])} |")
    verdicts = []
    for parallel in PARALLEL:
        ratio = by_size[500][f"cpu_ms_{parallel}"] / by_size[10][f"cpu_ms_{parallel}"]
        verdicts.append(
            f"* {parallel} at once, 500 guests against 10: {ratio:.2f} times the CPU"
            f" (at most {MAX_RATIO}): {'kept' if ratio <= MAX_RATIO else 'MISSED'}"
        )
    kib = by_size[500]["kib"]
    verdicts.append(
        f"* memory per connected guest: {kib:.0f} KiB (at most {MAX_KIB:.0f}):"
        f" {'kept' if kib <= MAX_KIB else 'MISSED'}"
    )
    about = (
        f"`python -m bench.fanout --execs {options.execs} --rounds {options.rounds}`,"
        f" {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, load before {before}, after"
        f" {load()}; medians of the rounds."
    )
    parts = ["# Fan-out: the controller's own cost", about, "\n".join(lines), "\n".join(verdicts)]
    return "\n\n".join(parts) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--execs", type=int, metavar="N", default=2000, help="per row (2000)")
    parser.add_argument("--rounds", type=int, metavar="N", default=3, help="how many (3)")
    parser.add_argument("--into", type=Path, metavar="FOLDER", default=HERE / "results")
    parser.add_argument("--guests", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
