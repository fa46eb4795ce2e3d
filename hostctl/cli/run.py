"""`hostctl run`: a command in a machine of its own, which is gone afterwards."""

import argparse
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hostctl.controller import Controller
from hostctl.machine import Machine

from . import exec as executing
from . import opening, render
from . import template as templating
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
            await _carry_in(machine, inward)
            args.name = machine.name
            code = await executing.relayed(args, machine, argv, env)
            for there, here in outward:
                await _carry_out(machine, there, here)
            return code
        finally:
            if args.keep:
                render.say(f"{machine.name} is kept; hostctl delete --force {machine.name}")
            else:
                await machine.delete(force=True)


async def _carry_in(machine: Machine, pairs: Sequence[tuple[str, str]]) -> None:
    """Copy files and folders into a machine, whose folders may not be there yet."""
    if above := {os.path.dirname(there) for _, there in pairs} - {"", "/", "/tmp"}:
        await machine.exec("mkdir", "-p", "--", *sorted(above), check=True)
    for here, there in pairs:
        mode = os.stat(here).st_mode
        if stat.S_ISDIR(mode):
            await machine.put_tree(here, there.rstrip("/"))
        else:
            await machine.put(Path(here), there, mode=mode & 0o777)


async def _carry_out(machine: Machine, there: str, here: str) -> None:
    if await machine.kind_of(there) == "folder":
        await machine.get_tree(there.rstrip("/"), here)
    else:
        await machine.get(there, Path(here))


async def _machine(controller: Controller, args: argparse.Namespace) -> Machine:
    """Take a clone of the template, which is made on first use when an image has its name."""
    owner = None if args.keep else os.getpid()
    script = templating.script_of(args)
    await controller.ensure_template(args.template, progress=render.talk)
    return await controller.take(
        args.template, owner_pid=owner, on_clone=script, overcommit=args.overcommit
    )


def _pair(text: str) -> tuple[str, str]:
    first, colon, second = text.rpartition(":")
    if not (first and colon and second):
        raise UsageError(f'run: "{text}": expected SOURCE:DESTINATION')
    return first, second
