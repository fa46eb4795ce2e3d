"""`hostctl clone`: a machine out of another's snapshot, whose disks it shares."""

import argparse

from . import opening, render


def clone(args: argparse.Namespace) -> int:
    """Make it, stopped."""
    return opening.run(_clone(args))


async def _clone(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        machine = await controller.clone(args.name, args.new, snapshot=args.snapshot)
    if args.json:
        render.json_out({"name": machine.name, "of": args.name, "snapshot": args.snapshot})
    else:
        render.talk(f'{machine.name}: cloned; next: "hostctl start {machine.name}"')
    return 0
