#!/usr/bin/env python3
"""Guest control through our channel, and the agent over the UART, beside VBoxManage: by turns.

    .venv/bin/python -m bench.virtualbox [ROUNDS]

Writes results/virtualbox.md. Runs on the tests' own VirtualBox (`make virtualbox-lab`; root), whose
guest is interpreted: numbers are to be compared with each other. `kept` has its session open, as a
program has it that uses hostctl; `opened` opens one for each task, as VBoxManage must.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from hostctl.backends.virtualbox.client import borrow, give_back
from hostctl_channels.interface import Channel, Command
from tests.virtualbox.laboratory import PASSWORD, Lab
from tests.virtualbox.machine import LabMachine
from tests.virtualbox.test_channel import guest_control, place_of, uart

from . import host
from .samples import MB, Samples

_SIZE: Final = 10 * 1024 * 1024
_UART_SIZE: Final = 64 * 1024
_EXECS: Final = 5
_READY_S: Final = 60
_TRUE: Final = Command.of("/bin/busybox", "true")
_PEER: Final = "VBoxManage"
_GOALS: Final = {"exec": 3.0, "put": 1.5, "get": 1.5}


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    begin, samples = host.load(), Samples()
    with Lab() as lab, LabMachine(lab, "bench") as machine:
        machine.boot()
        machine.restore()
        machine.await_additions()
        asyncio.run(_measure(machine, samples, rounds))
        version = lab.manage("--version").strip()
    how = f"VirtualBox {version}, {rounds} rounds; load before {begin}, after {host.load()}"
    text = _report(samples, how)
    (Path(__file__).parent / "results" / "virtualbox.md").write_text(text)
    print(text)


async def _measure(machine: LabMachine, samples: Samples, rounds: int) -> None:
    bridge = borrow(place_of(machine.lab))  # started once, whoever opens and closes sessions
    await bridge.connect()
    kept = guest_control(machine)
    with tempfile.TemporaryDirectory(prefix="vb-uart-") as locks:
        line = uart(machine, Path(locks))
        await line.connect(_READY_S)
        await kept.connect(_READY_S)
        for _ in range(rounds):
            await _peer(machine, samples)
            await _ours(kept, samples, "kept", _SIZE)
            await _opened(machine, samples)
            await _ours(line, samples, "agent on UART", _UART_SIZE)
        await line.close()
    await kept.close()
    await give_back(bridge)


async def _peer(machine: LabMachine, samples: Samples) -> None:
    with tempfile.TemporaryDirectory(prefix="vb-bench-") as name:
        password, data, back = (Path(name) / word for word in ("password", "data", "back"))
        password.write_text(PASSWORD)
        data.write_bytes(os.urandom(_SIZE))
        words = ("guestcontrol", machine.name, "--username=root", f"--passwordfile={password}")

        async def manage(*more: str) -> None:
            await asyncio.to_thread(machine.lab.manage, *words, *more, timeout_s=120)

        run = ("run", "--exe=/bin/busybox", "--", "true")
        times = [await _timed(lambda: manage(*run)) for _ in range(_EXECS)]
        samples.add("exec", _PEER, "ms", [took * 1e3 for took in times])
        took = await _timed(lambda: manage("copyto", str(data), "/tmp/theirs"))
        samples.add("put", _PEER, "MB/s", [_SIZE / took / MB])
        took = await _timed(lambda: manage("copyfrom", "/tmp/theirs", str(back)))
        assert back.read_bytes() == data.read_bytes()
        samples.add("get", _PEER, "MB/s", [_SIZE / took / MB])


async def _ours(channel: Channel, samples: Samples, name: str, size: int) -> None:
    times = [await _timed(lambda: channel.exec(_TRUE)) for _ in range(_EXECS)]
    samples.add("exec", name, "ms", [took * 1e3 for took in times])
    await _files(channel, samples, name, size)


async def _opened(machine: LabMachine, samples: Samples) -> None:
    times = []
    for _ in range(_EXECS):
        channel = guest_control(machine)
        times.append(await _timed(lambda: channel.exec(_TRUE)))  # noqa: B023  awaited here
        await channel.close()
    samples.add("exec", "opened", "ms", [took * 1e3 for took in times])


async def _files(channel: Channel, samples: Samples, name: str, size: int) -> None:
    data, sink = os.urandom(size), io.BytesIO()
    took = await _timed(lambda: channel.put(io.BytesIO(data), size, b"/tmp/ours"))
    samples.add("put", name, "MB/s", [size / took / MB])
    took = await _timed(lambda: channel.get(b"/tmp/ours", sink))
    assert sink.getvalue() == data
    samples.add("get", name, "MB/s", [size / took / MB])


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


def _report(samples: Samples, how: str) -> str:
    rows = []
    for task, contender, series in samples:
        spread = series.spread
        rows.append(
            f"| {task} | {contender} | {spread.median:.3g} ({spread.least:.3g}-{spread.most:.3g})"
            f" {series.unit} | {_ratio(samples, task, contender):.2f} |"
        )
    goals = [
        f"| {task} | {_ratio(samples, task, 'kept'):.2f} | {goal:g} |"
        for task, goal in _GOALS.items()
    ]
    return "\n".join(
        (
            "# Guest control, beside VBoxManage guestcontrol",
            "",
            f"{how}. The guest is interpreted. Written by `python -m bench.virtualbox`.",
            f"put and get {_SIZE >> 20} MiB; over the UART {_UART_SIZE >> 10} KiB, with digests.",
            "",
            "| task | by | median (range) | times as fast as VBoxManage |",
            "|---|---|---|---|",
            *sorted(rows),
            "",
            "| task, session kept | times as fast | wanted |",
            "|---|---|---|",
            *goals,
            "",
        )
    )


def _ratio(samples: Samples, task: str, contender: str) -> float:
    ours, theirs = samples.median(task, contender), samples.median(task, _PEER)
    return theirs / ours if task == "exec" else ours / theirs


if __name__ == "__main__":
    main()
