#!/usr/bin/env python3
"""What our channels move over a 16550, beside the raw tty, in one machine, by turns.

    .venv/bin/python -m bench.serial [ROUNDS]

Writes results/serial.md. raw: `dd` and `cat` in the guest, no framing, no checks, one write on the
host. agent: our agent on ttyS1. login: a getty there, and nothing of ours. Each has the line alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.console import open_console
from hostctl_channels.interface import Command
from hostctl_channels.login import Login
from hostctl_channels.serial_agent import open_serial
from hostctl_channels.staged import StagedChannel

from . import host
from .samples import MB, Samples

_PUT: Final = 448 * 1024
_GET: Final = 2048 * 1024
_LESS: Final = 32 * 1024  # through the login
_PINGS: Final = 20
_EXECS: Final = 5
_BURSTS: Final = (64 * 1024, 1_000_000)
_FILE: Final = "/tmp/serial-bench"
AGENT: Final = "setsid hostctl-agent /dev/ttyS1 </dev/null >/dev/null 2>&1 &"
# A root with a password, and a getty as init would have started it.
PASSWORD: Final = "let me in"
_HASH: Final = "$1$hostctl$BNI8Hy49p0tqdwVZ.lU8d1"
GETTY: Final = f"""sed -i 's|^root:x:|root:{_HASH}:|' /etc/passwd
setsid sh -c 'echo $$ >/tmp/loop; while :; do getty -L 115200 ttyS1 vt100; done' \\
    </dev/null >/dev/null 2>&1 &"""
FREE: Final = """[ ! -e /tmp/loop ] || kill -9 $(cat /tmp/loop); rm -f /tmp/loop
for f in /proc/[0-9]*/fd/*; do
    case $(readlink $f) in */ttyS1) p=${f#/proc/} && kill -9 ${p%%/*} ;; esac
done 2>/dev/null
sleep 0.3; stty -F /dev/ttyS1 sane 2>/dev/null; true"""


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    hostctl_images.build("tiny")
    begin = host.load()
    samples = Samples()
    bursts = asyncio.run(_machine(samples, rounds))
    text = _report(samples, bursts, f"{rounds} rounds; load before {begin}, after {host.load()}")
    (Path(__file__).parent / "results" / "serial.md").write_text(text)
    print(text)


async def _machine(samples: Samples, rounds: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        home = Home(Path(name) / "s", Path(name) / "r")
        async with Controller(home) as controller:
            machine = await controller.create(MachineSpec("b", image="tiny", accel="tcg"))
            try:
                await machine.start()
                await machine.put(os.urandom(_GET), _FILE)
                for _ in range(rounds):
                    await _raw(machine, samples)
                    await _ours(machine, samples, "agent", AGENT, _PUT, _GET)
                    await _ours(machine, samples, "login", GETTY, _LESS, _LESS)
                return await _bursts(machine)
            finally:
                await machine.delete(force=True)


@asynccontextmanager
async def _line(machine: Machine) -> AsyncIterator[socket.socket]:
    """Yield the raw line, with nobody else at it on either side."""
    await machine.shell(FREE)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(machine._files.socket("serial.1")))
        line.settimeout(120)
        await machine.shell("stty -F /dev/ttyS1 raw -echo", check=True)
        yield line


async def _raw(machine: Machine, samples: Samples) -> None:
    async with _line(machine) as line:
        await machine.shell(_behind(f"dd bs=1 count={_PINGS} <$t >$t"))
        await asyncio.sleep(0.5)
        samples.add("ping", "raw", "ms", [_echo(line) for _ in range(_PINGS)])
    async with _line(machine) as line:
        take = f"dd bs=4k iflag=fullblock,count_bytes count={_PUT} <$t >/tmp/raw; printf x >$t"
        await machine.shell(_behind(take))
        await asyncio.sleep(0.5)
        begin = time.perf_counter()
        await asyncio.to_thread(line.sendall, os.urandom(_PUT))
        await asyncio.to_thread(_read, line, 1)
        samples.add("put", "raw", "MB/s", [_PUT / (time.perf_counter() - begin) / MB])
    async with _line(machine) as line:
        begin = time.perf_counter()
        await machine.shell(_behind(f"cat {_FILE} >$t"))
        await asyncio.to_thread(_read, line, _GET)
        samples.add("get", "raw", "MB/s", [_GET / (time.perf_counter() - begin) / MB])


def _behind(line: str) -> str:
    return f"t=/dev/ttyS1; ({line}) </dev/null >/dev/null 2>&1 &"


def _echo(line: socket.socket) -> float:
    begin = time.perf_counter()
    line.sendall(b"x")
    _read(line, 1)
    return (time.perf_counter() - begin) * 1e3


def _read(line: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(line.recv(min(size, 65536)))


async def _ours(
    machine: Machine, samples: Samples, name: str, start: str, put: int, get: int
) -> None:
    await machine.shell(FREE)
    await machine.shell(start)
    locks = machine._files.runtime / "lines"
    locks.mkdir(exist_ok=True)
    target = machine._files.socket("serial.1")
    pulse = machine._files.pulse()
    channel: StagedChannel
    if name == "agent":
        channel = open_serial(target, lock_dir=locks, pulse=pulse)
    else:
        channel = open_console(target, Login("root", PASSWORD), lock_dir=locks, pulse=pulse)
    await channel.connect(60)
    await channel.exec(Command.of("true"))
    samples.add("ping", name, "ms", [await channel.ping() * 1e3 for _ in range(_PINGS)])
    true = Command.of("/bin/true")
    times = [await _timed(lambda: channel.exec(true)) * 1e3 for _ in range(_EXECS)]
    samples.add("exec /bin/true", name, "ms", times)
    data = os.urandom(put)
    took = await _timed(lambda: channel.put(io.BytesIO(data), put, b"/tmp/ours"))
    samples.add("put", name, "MB/s", [put / took / MB])
    await machine.shell(f"dd if={_FILE} of=/tmp/theirs bs=4k count={get // 4096}", check=True)
    sink = io.BytesIO()
    took = await _timed(lambda: channel.get(b"/tmp/theirs", sink))
    assert len(sink.getvalue()) == get
    samples.add("get", name, "MB/s", [get / took / MB])
    await channel.close()


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


async def _bursts(machine: Machine) -> list[str]:
    """Send bursts to a tty that is open and that nobody reads; count what can be read later."""
    found = []
    for size in _BURSTS:
        async with _line(machine) as line:
            await machine.shell("sleep 600 </dev/ttyS1 >/dev/null 2>&1 &")
            data, before = os.urandom(size), await _taken(machine)
            await asyncio.to_thread(line.sendall, data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(size / 20_000 + 5):
                    while await _taken(machine) < before + size:  # noqa: ASYNC110  the guest's
                        await asyncio.sleep(0.5)
            count = f"timeout 20 dd if=/dev/ttyS1 bs=4k iflag=fullblock,count_bytes count={size}"
            got = (await machine.shell(f"{count} 2>/dev/null")).stdout
            verdict = "none" if got == data else f"{size - len(got)}"
            found.append(f"| {size:,} | {verdict} |")
    return found


async def _taken(machine: Machine) -> int:
    """Return how many bytes the guest's UART has received."""
    text = (await machine.shell("grep ^1: /proc/tty/driver/serial")).stdout.decode()
    return int(text.partition("rx:")[2].split()[0])


def _report(samples: Samples, bursts: list[str], how: str) -> str:
    rows = []
    for task, contender, series in samples:
        spread = series.spread
        rows.append(
            f"| {task} | {contender} | {spread.median:.3g} ({spread.least:.3g}-{spread.most:.3g})"
            f" {series.unit} | {_ratio(samples, task, contender)} |"
        )
    return "\n".join(
        (
            "# Over a 16550 (ttyS1), beside the raw tty",
            "",
            f"Image `tiny`, TCG, 1 vCPU; {how}. Written by `python -m bench.serial`.",
            f"put {_PUT // 1024} KiB, get {_GET // 1024} KiB; through the login {_LESS // 1024} KiB"
            " both ways. Ours carry digests, raw does not.",
            "",
            "| task | by | median (range) | of raw |",
            "|---|---|---|---|",
            *sorted(rows),
            "",
            "A burst at a tty that is open and that nobody reads:",
            "",
            "| bytes | lost |",
            "|---|---|",
            *bursts,
            "",
        )
    )


def _ratio(samples: Samples, task: str, contender: str) -> str:
    try:
        return f"{samples.median(task, contender) / samples.median(task, 'raw'):.2f}"
    except KeyError:
        return ""


if __name__ == "__main__":
    main()
