"""`hostctl adopt`: what libvirt or VirtualBox has becomes a machine; it is not touched."""

import argparse

from . import opening, render
from .login import keep_login


def adopt(args: argparse.Namespace) -> int:
    """Take it."""
    return opening.run(_adopt(args))


async def _adopt(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        machine = await controller.adopt(
            args.domain, connect=args.connect, name=args.name, backend=args.backend
        )
        try:
            keep_login(machine, args)
        except BaseException:
            await machine.delete()
            raise
        state = (await machine.state()).value
    if args.json:
        render.json_out({"name": machine.name, "domain": args.domain, "state": state})
    else:
        render.talk(f"{machine.name}: adopted, {state}")
    return 0
