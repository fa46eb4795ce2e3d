"""`hostctl attach` and `hostctl detach`: our agent into a guest that never heard of us, and out."""

import argparse
import os
import re
from contextlib import suppress
from pathlib import Path

from hostctl.attach import Attachment
from hostctl.controller import Controller
from hostctl.errors import MachineNotFound
from hostctl.machine import Machine
from hostctl_channels.ports import SERIAL

from . import opening, render
from .exits import UsageError
from .login import keep_login


def attach(args: argparse.Namespace) -> int:
    """Bring it in, and say what was done."""
    return opening.run(_attach(args))


def detach(args: argparse.Namespace) -> int:
    """Take it away again."""
    return opening.run(_detach(args))


async def _attach(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        machine, is_new = await _found(controller, args)
        try:
            keep_login(machine, args)
            found = await machine.attach(
                persist=args.persist, dry_run=args.dry_run, progress=render.talk
            )
        except BaseException:
            if is_new and not machine.is_attached:
                await machine.delete()
            raise
        if is_new and args.dry_run:
            await machine.delete()
    _show(machine.name, found, args, "would be attached" if args.dry_run else "attached")
    return 0


async def _detach(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        found = await controller.machine(args.name).detach()
    _show(args.name, found, args, "detached")
    return 0


def _show(name: str, found: Attachment, args: argparse.Namespace, done: str) -> None:
    if args.json:
        fields = {"foothold": found.foothold, "channel": found.channel, "path": found.path or None}
        steps = {"is_service": found.is_service, "steps": list(found.steps)}
        render.json_out({"name": name, "done": done, **fields, **steps})
        return
    for step in found.steps if done != "detached" else ():
        print(render.safe(step))
    render.talk(f"{name}: {done}")


async def _found(controller: Controller, args: argparse.Namespace) -> tuple[Machine, bool]:
    """Return the machine that is meant, and whether it is new here."""
    with suppress(MachineNotFound):
        return controller.machine(args.place), False
    if args.connect:
        adopted = await controller.adopt(args.place, connect=args.connect, name=args.name)
        return adopted, True
    if "/" not in args.place:
        raise MachineNotFound(args.place)
    lines = dict(map(_parse_line, args.line))
    name = args.name or _name_of(args.place)
    if await _is_monitor(args.place):
        monitor = Path(args.place)
        return await controller.adopt_foreign(name, monitor=monitor, lines=lines), True
    return await controller.adopt_foreign(name, lines={**lines, SERIAL: args.place}), True


async def _is_monitor(target: str) -> bool:
    from hostctl.backends.qemu.foreign import is_monitor

    return _is_socket(target) and await is_monitor(target)


def _is_socket(target: str) -> bool:
    return Path(target).is_socket()


def _parse_line(text: str) -> tuple[str, str]:
    port, equals, place = text.partition("=")
    if not (port and equals and place):
        raise UsageError(f"--line {text!r}: expected PORT=PLACE")
    return port, place if "://" in place else os.path.abspath(place)


def _name_of(target: str) -> str:
    """Make a machine's name of a path: its last two parts say most."""
    words = re.findall(r"[A-Za-z0-9_-]+", target.partition("://")[2] or target)
    return "-".join(words[-2:])[:63].strip("-")
