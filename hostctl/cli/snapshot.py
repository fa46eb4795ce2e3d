"""`hostctl snapshot save|list|restore|delete`: moments of a machine, memory and disks together."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from hostctl.backends.interface import Snapshot
from hostctl.machine import Machine

from . import opening, render, several, units


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
        board = several.Board(json=args.json)
        async with opening.open_controller() as controller:

            async def one(name: str) -> None:
                await move(controller.machine(name), args.tag)

            async def tell(name: str, _: None, duration_s: float) -> None:
                await board.tell_done(name, done, duration_s, tag=args.tag)

            chosen = several.chosen(controller, args)
            return await several.each(args, chosen, one, tell, board=board)

    return opening.run(act())


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        chosen = several.chosen(controller, args)

        async def one(name: str) -> tuple[Snapshot, ...]:
            return await controller.machine(name).list_snapshots()

        async def tell(name: str, snapshots: tuple[Snapshot, ...], _: float) -> None:
            if args.json:
                found = [as_json(snapshot) for snapshot in snapshots]
                several.show_json(chosen, name, "snapshots", found)
            else:
                head = ("TAG", "CREATED", "MEMORY", "SIZE")
                several.show(chosen, name, render.table(head, map(_row, snapshots)))

        return await several.each(args, chosen, one, tell)


def _row(snapshot: Snapshot) -> tuple[str, str, str, str]:
    return (
        snapshot.tag,
        f"{snapshot.created.astimezone():%Y-%m-%d %H:%M:%S}",
        "yes" if snapshot.has_ram else "no",
        "-" if snapshot.vm_state_bytes is None else units.show_size(snapshot.vm_state_bytes),
    )
