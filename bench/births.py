#!/usr/bin/env python3
"""What a clone's first milliseconds are made of, and what other ways to begin would give.

    .venv/bin/python -m bench.births [ROUNDS]

Writes results/births.md. QEMU's own start is timed with parts of a clone's command line left out,
then a clone's way from its greeting to the first answer; from a template on disk and in tmpfs.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.backends.qemu.argv import Launch, argv
from hostctl.backends.qemu.backend import NAMES, QemuBackend
from hostctl.backends.qemu.moment import Moment
from hostctl.clone import CloneOptions, Cloner
from hostctl.controller import Controller
from hostctl.state import Home, MachineFiles

from . import host
from .clones import connected
from .samples import Samples

_SPEC: Final = MachineSpec("any", image="tiny", accel="tcg")
_TEMPLATE: Final = "t"
_RESULTS: Final = Path(__file__).parent / "results"
_GREETING, _CPU = "until QEMU's greeting", "CPU of it"
_WAITED, _PING = "first ping of a QEMU that waited with its devices", "first ping of a clone"
_FOLDERS: Final = {"template on disk": None, "template in tmpfs": "/dev/shm"}

Words = list[str]


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    hostctl_images.build("tiny")
    samples, before = Samples(), host.load()
    for where, folder in _FOLDERS.items():
        facts = asyncio.run(_measure(samples, rounds, where, folder))
    facts = {"rounds": rounds, "load_before": before, **facts, "load_after": host.load()}
    text = _report(samples, facts)
    (_RESULTS / "births.md").write_text(text)
    print(text)


async def _measure(samples: Samples, rounds: int, where: str, folder: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hb-", dir=folder) as name:
        home = Home(Path(name) / "s", Path(name) / "r")
        async with Controller(home) as controller:
            await controller.create_template(_TEMPLATE, _SPEC)
            for _ in range(rounds):
                if folder is None:
                    await asyncio.to_thread(_starts, samples, home)
                samples.add(_PING, where, "ms", [await _cloned(controller)])
                samples.add(_WAITED, where, "ms", [await _waited(controller)])
            machine = await controller.clone(_TEMPLATE, "m")
            facts = await host.describe(machine, "tiny")
            await machine.delete(force=True)
            return facts


# QEMU's own start


def _starts(samples: Samples, home: Home) -> None:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        files = Home(Path(name) / "s", Path(name) / "r").open().files("m")
        for folder in (files.directory, files.runtime, files.disks):
            folder.mkdir(parents=True, exist_ok=True)
        for what, words in _ways(home, files).items():
            wall_ms, cpu_ms = _start(words, files)
            samples.add(_GREETING, what, "ms", [wall_ms])
            samples.add(_CPU, what, "ms", [cpu_ms])


def _ways(home: Home, files: MachineFiles) -> dict[str, Words]:
    template = home.state / "templates" / _TEMPLATE
    moment = Moment(template)
    qcow2 = ["qemu-img", "create", "-q", "-f", "qcow2", str(files.vmstate), "1M"]
    subprocess.run(qcow2, check=True)

    def words(ports: tuple[str, ...] = NAMES, *, has_file: bool = True) -> Words:
        ram = moment.ram(is_birth=True) if has_file else None
        launch = Launch("0", "tcg", ports, frozen=True, ram=ram, is_incoming=True)
        return argv(_SPEC, files, launch)

    whole = words()
    sandbox = whole.index("-sandbox")
    monitor = f"socket,id=qmp,path={files.socket('qmp')},server=on,wait=off"
    bare = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-chardev", monitor]
    bare += ["-mon", "chardev=qmp,mode=control"]
    return {
        "no machine": [whole[0], *bare, "-machine", "none"],
        "a q35 without devices": [whole[0], *bare, "-machine", "q35", "-accel", "tcg", "-m", "256"],
        "a clone": whole,
        "a clone without its sandbox": whole[:sandbox] + whole[sandbox + 2 :],
        "a clone with two ports in place of fourteen": words(NAMES[:2]),
        "a clone with RAM of its own": words(has_file=False),
    }


def _start(words: Words, files: MachineFiles) -> tuple[float, float]:
    """Return the milliseconds, and those of CPU, until QEMU's first word."""
    path = files.socket("qmp")
    begin = time.perf_counter()
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        with connected(path) as line:
            assert line.recv(1)
            wall_ms = (time.perf_counter() - begin) * 1e3
            cpu_ms = _cpu_ms(process.pid)
    finally:
        process.kill()
        process.communicate()
        path.unlink(missing_ok=True)
    return wall_ms, cpu_ms


def _cpu_ms(pid: int) -> float:
    """Return what the threads of a process have run, in milliseconds, as the scheduler counts."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


# From there to an answer


async def _cloned(controller: Controller) -> float:
    begin = time.perf_counter()
    machine = await controller.clone(_TEMPLATE, "m", wait=False)
    await machine.ping()
    took_ms = (time.perf_counter() - begin) * 1e3
    await machine.delete(force=True)
    return took_ms


async def _waited(controller: Controller) -> float:
    """Return the milliseconds from the moment on when a QEMU that waits is told to go on."""
    told = 0.0
    take_over = QemuBackend._be_born

    async def wait(backend: QemuBackend, *, frozen: bool) -> None:
        nonlocal told
        await asyncio.sleep(0.1)
        told = time.perf_counter()
        await take_over(backend, frozen=frozen)

    with _replaced(QemuBackend, "_be_born", wait):
        cloner = Cloner(controller)
        template = await cloner.template(_TEMPLATE, 1, overcommit=True)
        machine = await cloner.make(template, "m", CloneOptions(wait=False))
        await machine.ping()
        took_ms = (time.perf_counter() - told) * 1e3
    await machine.delete(force=True)
    return took_ms


@contextmanager
def _replaced(owner: type, name: str, method: Callable[..., object]) -> Iterator[None]:
    was = getattr(owner, name)
    setattr(owner, name, method)
    try:
        yield
    finally:
        setattr(owner, name, was)


def _report(samples: Samples, facts: dict[str, Any]) -> str:
    rows = [f"| {task} | {who} | {_shown(series.spread)} |" for task, who, series in samples]
    return "\n".join(
        (
            "# What a clone's first milliseconds are made of",
            "",
            "Image `tiny`, 256 MiB, 1 vCPU. Written by `python -m bench.births`.",
            "",
            *(f"* {key}: {value}" for key, value in facts.items()),
            "",
            "| what | of | median (range) |",
            "|---|---|--:|",
            *sorted(rows),
            "",
        )
    )


def _shown(spread: Any) -> str:
    return f"{spread.median:.0f} ({spread.least:.0f} to {spread.most:.0f}) ms"


if __name__ == "__main__":
    main()
