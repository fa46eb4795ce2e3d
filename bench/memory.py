"""Host memory during one huge put and get: the kernel's own peak, above an idle connection.

A process of its own, so that nothing which other measurements left behind can hide the growth.

    python -m bench.memory put|get NAME LOCAL GUEST    prints bytes: idle, peak, moved
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home

from .cli import environment
from .guest import FOLDER, NAME
from .samples import Samples

__all__ = ["TASK", "measure"]

TASK: Final = "host memory"
_MIB: Final = 1 << 20


async def measure(machine: Machine, home: Home, samples: Samples, size_bytes: int) -> None:
    """Put and get a file of `size_bytes` once; enter how far hostctl and QEMU grew."""
    local = home.state / "huge"
    local.touch()
    with local.open("r+b") as file:
        file.truncate(size_bytes)  # a hole: neither disk nor page cache
    qemu = (await machine.describe()).pid
    await machine.close()
    guest = f"{FOLDER}/huge"
    for way, path in (("put", local), ("get", Path("/dev/null"))):
        _forget_peak(qemu)
        before = _kib("VmRSS", qemu)
        idle, peak, moved = await asyncio.to_thread(_watch, home, way, path, guest)
        if moved != size_bytes:
            raise AssertionError(f"{way}: {moved} bytes of {size_bytes}")
        samples.add(TASK, way, "MiB", [(peak - idle) / _MIB])
        if way == "get":  # in a put the guest's own memory grows by the file
            samples.add(TASK, "get, QEMU", "MiB", [(_kib("VmHWM", qemu) - before) / 1024])
    local.unlink()
    await machine.exec("rm", "-f", guest, check=True)


def _watch(home: Home, way: str, local: Path, guest: str) -> tuple[int, int, int]:
    argv = [sys.executable, "-m", "bench.memory", way, NAME, str(local), guest]
    root = Path(__file__).parents[1]
    env = environment(home)
    done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {way} of {local}: {done.stderr.strip()}")
    idle, peak, moved = map(int, done.stdout.split())
    return idle, peak, moved


async def _move(way: str, name: str, local: Path, guest: str) -> None:
    async with Controller() as controller:
        machine = controller.machine(name)
        await machine.ping()
        _forget_peak("self")
        idle = _kib("VmRSS", "self")
        if way == "put":
            info = await machine.put(local, guest)
        else:
            info = await machine.get(guest, local)
        print(idle * 1024, _kib("VmHWM", "self") * 1024, info.size_bytes)


def _forget_peak(process: int | str | None) -> None:
    Path(f"/proc/{process}/clear_refs").write_text("5")  # see proc(5)


def _kib(field: str, process: int | str | None) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.M)
    if found is None:
        raise SystemExit(f"bench: no {field} in /proc/{process}/status")
    return int(found[1])


if __name__ == "__main__":
    asyncio.run(_move(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
