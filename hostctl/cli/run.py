"""`hostctl run`: a command in a machine of its own, which is gone afterwards."""

import argparse
import os
from pathlib import Path

import hostctl_images
from hostctl.controller import Controller
from hostctl.machine import Machine

from . import exec as executing
from . import opening, render
from .exits import UsageError


def run(args: argparse.Namespace) -> int:
    """Clone, carry files in, run, carry files out, remove."""
    argv = executing.guest_argv(args.command, shell=args.shell)
    return opening.run(_run(args, argv, dict(map(executing.parse_env, args.env))))


async def _run(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    inward, outward = list(map(_pair, args.put)), list(map(_pair, args.get))
    async with opening.open_controller() as controller:
        await controller.sweep_throwaways()
        machine = await _machine(controller, args)
        try:
            for here, there in inward:
                await machine.put(Path(here), there, mode=os.stat(here).st_mode & 0o777)
            args.name = machine.name
            code = await executing.relayed(args, machine, argv, env)
            for there, here in outward:
                await machine.get(there, Path(here))
            return code
        finally:
            if args.keep:
                render.say(f"{machine.name} is kept; hostctl delete --force {machine.name}")
            else:
                await machine.delete(force=True)


async def _machine(controller: Controller, args: argparse.Namespace) -> Machine:
    """Clone the template, which is made on first use when an image has its name."""
    if args.template in hostctl_images.recipes():
        await controller.template_of(args.template, progress=render.talk)
    name = f"run-{os.urandom(3).hex()}"
    owner = None if args.keep else os.getpid()
    return await controller.clone(args.template, name, owner_pid=owner)


def _pair(text: str) -> tuple[str, str]:
    first, colon, second = text.rpartition(":")
    if not (first and colon and second):
        raise UsageError(f'run: "{text}": expected SOURCE:DESTINATION')
    return first, second
