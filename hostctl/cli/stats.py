"""`hostctl stats`: what machines use, on this host and inside."""

import argparse
import asyncio
from dataclasses import asdict
from typing import Any

from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.stats import MachineStats

from . import opening, render, several, units


def stats(args: argparse.Namespace) -> int:
    """Print it, a line a machine."""
    return opening.run(_stats(args))


async def _stats(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        if args.names:
            machines = list(map(controller.machine, several.chosen(controller, args).names))
        else:
            machines = list(controller.machines())
            states = await asyncio.gather(*(machine.state() for machine in machines))
            both = zip(machines, states, strict=True)
            machines = [machine for machine, state in both if state is MachineState.RUNNING]
        found = await asyncio.gather(*(machine.stats() for machine in machines))
    rows = list(zip(machines, found, strict=True))
    if args.json:
        render.json_out([{"name": machine.name, **asdict(use)} for machine, use in rows])
    else:
        print(render.table(_HEAD, [_row(machine, use) for machine, use in rows]))
    return 0


_HEAD = (
    "NAME",
    "CPU",
    "MEMORY",
    "DISK READ",
    "WRITTEN",
    "PORTS READ",
    "WRITTEN",
    "GUEST CPU",
    "LOAD",
    "FREE",
    "OF",
)


def _row(machine: Machine, use: MachineStats) -> tuple[str, ...]:
    host, guest = use.host, use.guest
    return (
        machine.name,
        _shown(host and host.cpu_s, units.show_duration),
        _shown(host and host.resident_bytes, units.show_size),
        _shown(use.disk_read_bytes, units.show_size),
        _shown(use.disk_written_bytes, units.show_size),
        _shown(guest and guest.port_read_bytes, units.show_size),
        _shown(guest and guest.port_written_bytes, units.show_size),
        _shown(guest and guest.cpu_s, units.show_duration),
        _shown(guest and guest.load, str),
        _shown(guest and guest.available_bytes, units.show_size),
        _shown(guest and guest.memory_bytes, units.show_size),
    )


def _shown(value: Any, show: Any) -> str:
    return "-" if value is None else str(show(value))
