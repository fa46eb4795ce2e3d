"""`hostctl snapshot save|list|restore|delete`: moments of a machine, memory and disks together."""

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hostctl.backends.interface import Snapshot
from hostctl.machine import Machine

from . import opening, render, units


def save(args: argparse.Namespace) -> int:
    """Keep this moment under a tag."""
    quiesce: bool = args.quiesce
    return _move(args, lambda machine, tag: machine.save_snapshot(tag, quiesce=quiesce), "saved")


def restore(args: argparse.Namespace) -> int:
    """Go back to a tag's moment."""
    return _move(args, lambda machine, tag: machine.restore_snapshot(tag), "restored")


def delete(args: argparse.Namespace) -> int:
    """Forget a tag's moment."""
    return _move(args, lambda machine, tag: machine.delete_snapshot(tag), "deleted")


def list_snapshots(args: argparse.Namespace) -> int:
    """List a machine's snapshots, oldest first."""
    return opening.run(_list(args))


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot under its documented keys."""
    return {
        "tag": snapshot.tag,
        "created": snapshot.created.isoformat(),
        "vm_state_bytes": snapshot.vm_state_bytes,
        "has_ram": snapshot.has_ram,
    }


def _move(
    args: argparse.Namespace, move: Callable[[Machine, str], Awaitable[object]], done: str
) -> int:
    async def act() -> int:
        began = time.monotonic()
        async with opening.open_controller() as controller:
            await move(controller.machine(args.name), args.tag)
        duration_s = time.monotonic() - began
        if args.json:
            fields = {"name": args.name, "tag": args.tag, "done": done}
            render.json_out({**fields, "duration_s": round(duration_s, 3)})
        else:
            took = units.show_duration(duration_s)
            render.talk(f"{args.name}: snapshot {args.tag} {done} ({took})")
        return 0

    return opening.run(act())


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        snapshots = await controller.machine(args.name).list_snapshots()
    if args.json:
        render.json_out([as_json(snapshot) for snapshot in snapshots])
    else:
        print(render.table(("TAG", "CREATED", "MEMORY", "SIZE"), map(_row, snapshots)))
    return 0


def _row(snapshot: Snapshot) -> tuple[str, str, str, str]:
    return (
        snapshot.tag,
        f"{snapshot.created.astimezone():%Y-%m-%d %H:%M:%S}",
        "yes" if snapshot.has_ram else "no",
        "-" if snapshot.vm_state_bytes is None else units.show_size(snapshot.vm_state_bytes),
    )
