#!/usr/bin/env python3
"""Every channel at the same four tasks, in one run, by turns: ping, exec, put, get.

    .venv/bin/python -m bench.channels [ROUNDS]

Writes channels.md, channels.json and channels.svg into results/. Two machines of one image run side
by side, one started by hostctl, one by a libvirtd of our own, which is asked through an sshd on
loopback as well; only one of them is spoken to at any time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.backends.libvirt.backend import LibvirtBackend
from hostctl.backends.libvirt.connection import borrow, give_back
from hostctl.connect import open_channel
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.interface import Channel, Command
from tests.libvirt.daemon import Daemon

from . import chart, host
from .guest import FOLDER, bring_guest_agent
from .samples import MB, Samples
from .serial import AGENT, FREE, GETTY, PASSWORD

PING, EXEC, PUT, GET = "ping", "exec /bin/true", "put", "get"
SOCKET, STREAM = "agent: QEMU's socket", "agent: libvirt's stream"
_RESULTS: Final = Path(__file__).parent / "results"
_MEMORY_MIB: Final = 640
_CONNECT_S: Final = 60.0
_STREAM_TO_SOCKET: Final = 0.3
_MIB: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Effort:
    """How often in a round, and how many bytes: what a channel does in some seconds."""

    pings: int
    execs: int
    put_bytes: int
    get_bytes: int


FAST: Final = Effort(50, 10, 64 * _MIB, 64 * _MIB)
FOREIGN: Final = Effort(50, 10, 4 * _MIB, 8 * _MIB)
LINE: Final = Effort(20, 3, 128 * 1024, _MIB)
LOGIN: Final = Effort(20, 3, 32 * 1024, 32 * 1024)


@dataclasses.dataclass(frozen=True, slots=True)
class Entrant:
    """One channel into one machine; `start` is what the guest must run first."""

    name: str
    machine: Machine
    key: str
    effort: Effort
    start: str = ""

    @asynccontextmanager
    async def channel(self, login: Path) -> AsyncIterator[Channel]:
        """Yield the channel, connected."""
        if self.start:
            await self.machine.shell(FREE)
            await self.machine.shell(self.start, check=True)
        files = self.machine._files
        files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        channel = open_channel(
            await self.machine._backend.endpoints(),
            files.runtime,
            files.pulse(),
            only=self.key,
            login=login,
        )
        try:
            await channel.connect(_CONNECT_S)
            yield channel
        finally:
            await channel.close()


def main() -> None:
    """Run it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    hostctl_images.build("tiny")
    samples, before, began = Samples(), host.load(), time.monotonic()
    facts = asyncio.run(_measure(samples, rounds))
    facts = {"rounds": rounds, "load_before": before, **facts, "load_after": host.load()}
    facts["took_s"] = round(time.monotonic() - began)
    _report(samples, facts)


async def _measure(samples: Samples, rounds: int) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-")))
        login = folder / "login.toml"
        login.write_text(f'user = "root"\npassword = "{PASSWORD}"\n')
        login.chmod(0o600)
        home = Home(folder / "s", folder / "r")
        controller = await stack.enter_async_context(Controller(home))
        entrants = await _entrants(stack, controller, folder)
        for number in range(rounds):
            turn = number % len(entrants)
            for entrant in (*entrants[turn:], *entrants[:turn]):
                print(f"round {number + 1} of {rounds}: {entrant.name}", file=sys.stderr)
                async with entrant.channel(login) as channel:
                    await _race(channel, entrant, samples)
        return dict(await host.describe(entrants[0].machine, "tiny"))


async def _entrants(
    stack: AsyncExitStack, controller: Controller, folder: Path
) -> tuple[Entrant, ...]:
    """Start both machines, with QEMU's guest agent beside ours, and name every way in."""
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hl-")))
    daemon = stack.enter_context(Daemon(root))
    own = await _machine(stack, controller, "own", "qemu", None)
    domain = await _machine(stack, controller, "domain", "libvirt", daemon.uri)
    remote = await _remote(stack, controller, domain, daemon.start_sshd(folder))
    return (
        Entrant(SOCKET, own, "agent", FAST),
        Entrant(STREAM, domain, "agent", FAST),
        Entrant("agent: libvirt's stream over ssh", remote, "agent", FAST),
        Entrant("guest agent: QEMU's socket", own, "qga", FOREIGN),
        Entrant("guest agent: through libvirt", domain, "qga", FOREIGN),
        Entrant("agent: serial line", own, "serial", LINE, AGENT),
        Entrant("login: serial line", own, "console", LOGIN, GETTY),
    )


async def _machine(
    stack: AsyncExitStack, controller: Controller, name: str, backend: str, uri: str | None
) -> Machine:
    spec = MachineSpec(name, image="tiny", memory_mib=_MEMORY_MIB, accel="tcg")
    machine = await controller.create(spec, backend=backend, connect=uri)
    stack.push_async_callback(machine.delete, force=True)
    await machine.start()
    mount = f"mkdir -p {FOLDER} && mount -t tmpfs -o size=90% bench {FOLDER}"
    await machine.shell(mount, check=True)
    await bring_guest_agent(machine)
    return machine


async def _remote(
    stack: AsyncExitStack, controller: Controller, domain: Machine, uri: str
) -> Machine:
    """Return the domain as another host sees it."""
    stack.push_async_callback(give_back, borrow(uri))
    assert isinstance(domain._backend, LibvirtBackend)
    target = dataclasses.replace(domain._backend.target, uri=uri)
    backend = LibvirtBackend(domain.spec, domain._files, target.to_json())
    remote = Machine(controller.home, domain.spec, domain._files, backend)
    stack.push_async_callback(remote.close)
    return remote


async def _race(channel: Channel, entrant: Entrant, samples: Samples) -> None:
    effort, path = entrant.effort, f"{FOLDER}/file".encode()
    true = Command.of("/bin/true")
    await channel.exec(true)
    pings = [await _ms(channel.ping) for _ in range(effort.pings)]
    samples.add(PING, entrant.name, "ms", pings)
    execs = [await _ms(lambda: channel.exec(true)) for _ in range(effort.execs)]
    samples.add(EXEC, entrant.name, "ms", execs)
    data, sink = os.urandom(max(effort.put_bytes, effort.get_bytes)), io.BytesIO()
    put = data[: effort.put_bytes]
    took = await _ms(lambda: channel.put(io.BytesIO(put), len(put), path))
    samples.add(PUT, entrant.name, "MB/s", [len(put) / took * 1e3 / MB])
    await entrant.machine.put(data[: effort.get_bytes], path.decode())
    took = await _ms(lambda: channel.get(path, sink))
    if sink.getvalue() != data[: effort.get_bytes]:
        raise AssertionError(f"{entrant.name}: what came back is not what was put")
    samples.add(GET, entrant.name, "MB/s", [effort.get_bytes / took * 1e3 / MB])


async def _ms(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return (time.perf_counter() - begin) * 1e3


def _report(samples: Samples, facts: dict[str, object]) -> None:
    text = "\n".join(
        (
            "# Every channel, side by side",
            "",
            "Written by `python -m bench.channels`. Medians of the rounds, and their range.",
            "",
            *(f"* {key}: {value}" for key, value in facts.items()),
            "",
            *_table(samples),
            "",
            "| what | is | rounds | must be |",
            "|---|--:|--:|--:|",
            *(_promise(samples, task) for task in (PUT, GET)),
            "",
        )
    )
    (_RESULTS / "channels.md").write_text(text)
    series = [
        {"task": task, "channel": name, "unit": each.unit, "rounds": each.rounds}
        for task, name, each in samples
    ]
    rows = ",\n".join("    " + json.dumps(row) for row in series)
    head = json.dumps(facts, indent=2).replace("\n", "\n  ")
    (_RESULTS / "channels.json").write_text(
        f'{{\n  "host": {head},\n  "series": [\n{rows}\n  ]\n}}\n'
    )
    chart.draw_channels(samples, (PING, EXEC, PUT, GET), _RESULTS / "channels.svg")
    print(text)


def _table(samples: Samples) -> list[str]:
    tasks = (PING, EXEC, PUT, GET)
    rows = [f"| channel | {' | '.join(tasks)} |", "|---|--:|--:|--:|--:|"]
    for name in samples.contenders(PING):
        cells = " | ".join(_cell(samples, task, name) for task in tasks)
        rows.append(f"| {name} | {cells} |")
    return rows


def _cell(samples: Samples, task: str, name: str) -> str:
    series = samples.get(task, name)
    spread = series.spread
    return f"{spread.median:.3g} {series.unit} ({spread.least:.3g} to {spread.most:.3g})"


def _promise(samples: Samples, task: str) -> str:
    ratio = samples.ratio(task, STREAM, SOCKET)
    spread = f"{ratio.least:.2f} to {ratio.most:.2f}"
    what = f"{task}, libvirt's stream to the socket"
    return f"| {what} | {ratio.median:.2f} | {spread} | ≥ {_STREAM_TO_SOCKET} |"


if __name__ == "__main__":
    main()
