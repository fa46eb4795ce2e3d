"""Measure everything, judge it, and draw it.

    python -m bench [--rounds N] [--quick] [--into FOLDER]

Writes latest.json (the host, all samples, the verdicts), latest.md (the verdicts as a table, which
it also prints) and comparison.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hostctl_images
from hostctl.connect import open_channel
from hostctl.controller import Controller
from hostctl.errors import HostctlError
from hostctl.state import Home

from . import chart, cli, host, memory, wire
from .budgets import Verdict, table, verdicts
from .effort import FULL, QUICK, Effort
from .guest import bring_qga, bring_rawline, running
from .line import Race
from .samples import Samples

IMAGE = "tiny"
ACCEL = "tcg"  # what every host has; ratios under KVM are another table


def main() -> None:
    """Run it from the command line."""
    options = _options()
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the machine is removed
    begin = time.monotonic()
    samples, facts = Samples(), {"load_before": host.load()}
    _say("the wire, through a socketpair")
    wire.measure(samples, effort.rounds, effort.wire_bodies)
    try:
        hostctl_images.build(IMAGE, progress=_say)
        facts |= asyncio.run(_measure_machine(samples, effort))
    except HostctlError as err:
        sys.exit(f"bench: {err}" + (f"; {err.hint}" if err.hint else ""))
    except KeyboardInterrupt:
        sys.exit("bench: ended before its time; the machine is removed, nothing is written")
    facts |= {"load_after": host.load(), "took_s": round(time.monotonic() - begin)}
    _report(options.into, samples, facts, effort)


async def _measure_machine(samples: Samples, effort: Effort) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hostctl-bench-") as name:
        folder = Path(name)
        home = Home(folder / "state", folder / "run")
        async with (
            Controller(home) as controller,
            running(controller, folder, IMAGE, ACCEL) as machine,
        ):
            _say("bringing the peers into the guest")
            await bring_rawline(machine, folder)
            facts = await host.describe(machine, IMAGE) | {"qga": await bring_qga(machine)}
            files = machine._files
            endpoints = await machine._backend.endpoints()
            through = open_channel(endpoints, files.runtime, files.pulse(), only="qga")
            race = Race(machine, through, folder, effort, samples)
            facts |= {f"qga_{way}_piece": size for way, size in (await race.prepare()).items()}
            for number in range(effort.rounds):
                _say(f"round {number + 1} of {effort.rounds}")
                await race.round(number)
                await cli.measure(machine, home, samples, effort.commands)
            race.choose_polling()
            for number in range(effort.huge_rounds):
                _say(f"memory, {number + 1} of {effort.huge_rounds}")
                await memory.measure(machine, home, samples, effort.huge_bytes)
    return facts


def _report(folder: Path, samples: Samples, facts: dict[str, Any], effort: Effort) -> None:
    found = list(verdicts(samples))
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "host": facts,
        "effort": asdict(effort),
        "verdicts": [_verdict(each) for each in found],
        "series": [
            {
                "task": task,
                "contender": contender,
                "unit": series.unit,
                "median": _short(series.spread.median),
                "rounds": [[_short(value) for value in values] for values in series.rounds],
            }
            for task, contender, series in samples
        ],
    }
    (folder / "latest.json").write_text(_lines(whole))
    caption = f"{facts['cpu']}, {facts['qemu'].split(' (')[0]}, {facts['accel'].upper()}, 1 vCPU"
    chart.draw(samples, folder / "comparison.svg", caption)
    text = "\n".join(f"* {key}: {value}" for key, value in facts.items()) + f"\n\n{table(found)}\n"
    (folder / "latest.md").write_text(f"# The latest run\n\n{text}")
    print(text)


def _verdict(each: Verdict) -> dict[str, Any]:
    value = {key: _short(number) for key, number in asdict(each.value).items()}
    return asdict(each) | {"value": value, "is_kept": each.is_kept}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _lines(whole: dict[str, Any]) -> str:
    """Write JSON with one line per series, so that two runs can be compared by eye."""
    parts = []
    for key, value in whole.items():
        if isinstance(value, list):
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in value)
            parts.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")
            parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure hostctl.")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds (5)")
    parser.add_argument("--quick", action="store_true", help="a quick look, no claim")
    here = Path(__file__).parent / "results"
    parser.add_argument("--into", type=Path, metavar="FOLDER", default=here, help="for results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
