"""`hostctl list`: one line a machine."""

import argparse
import asyncio
from typing import Any

from hostctl.controller import Controller
from hostctl.errors import BackendError
from hostctl.machine import Machine

from . import opening, render, several, units


def list_machines(args: argparse.Namespace) -> int:
    """List the machines, sorted by name."""
    return opening.run(_list(args))


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        await controller.sweep_throwaways()
        machines = _chosen(controller, args)
        if args.quiet:
            print("".join(f"{machine.name}\n" for machine in machines), end="")
            return 0
        rows = await asyncio.gather(*map(_row, machines))
    if args.json:
        render.json_out(rows)
    else:
        print(_table(rows))
    return 0


def _chosen(controller: Controller, args: argparse.Namespace) -> tuple[Machine, ...]:
    """Return the machines that were asked for; of all, one that cannot be read is left out."""
    if not args.names:
        return controller.machines()
    return tuple(map(controller.machine, several.chosen(controller, args).names))


async def _row(machine: Machine) -> dict[str, Any]:
    spec = machine.spec
    return {
        "name": machine.name,
        "state": await _state(machine),
        "image": spec.image,
        "cpus": spec.cpus,
        "memory_mib": spec.memory_mib,
        "uptime_s": machine.uptime_s(),
        "tags": list(machine.tags),
    }


async def _state(machine: Machine) -> str:
    """Return the state; of a machine whose hypervisor cannot be asked, `unknown`."""
    try:
        return (await machine.state()).value
    except BackendError as err:
        render.say(render.error_line(err))
        return "unknown"


def _table(rows: list[dict[str, Any]]) -> str:
    return render.table(
        ("NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "UPTIME", "TAGS"),
        [
            (
                row["name"],
                row["state"],
                row["image"] or "-",
                str(row["cpus"]),
                units.show_size(row["memory_mib"] * 2**20),
                render.uptime(row["uptime_s"]),
                ",".join(row["tags"]) or "-",
            )
            for row in rows
        ],
    )
