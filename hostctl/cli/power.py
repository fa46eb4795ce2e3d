"""`hostctl start|stop|pause|resume|reset|delete|wait`: the moves of a machine's life."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Final

from hostctl.lifecycle import MachineState
from hostctl.machine import Machine

from . import opening, several

WAIT_S: Final = 120.0

Move = Callable[[Machine], Awaitable[None]]


def start(args: argparse.Namespace) -> int:
    """Start machines; wait until they answer, unless told not to."""

    async def move(machine: Machine) -> None:
        await machine.start(wait=not args.no_wait, timeout_s=args.timeout_s)

    return _each(args, move, "started" if args.no_wait else "ready")


def stop(args: argparse.Namespace) -> int:
    """Shut machines down, by force after a while."""

    async def move(machine: Machine) -> None:
        if args.save:
            await machine.save()
        else:
            await machine.stop(force=args.force, timeout_s=args.timeout_s)

    return _each(args, move, "saved" if args.save else "stopped")


def pause(args: argparse.Namespace) -> int:
    """Freeze machines."""
    return _each(args, lambda machine: machine.pause(), "paused")


def resume(args: argparse.Namespace) -> int:
    """Let machines go on."""
    return _each(args, lambda machine: machine.resume(), "running")


def reset(args: argparse.Namespace) -> int:
    """Press the reset button of machines."""

    async def move(machine: Machine) -> None:
        await machine.reset(wait=not args.no_wait)

    return _each(args, move, "reset" if args.no_wait else "ready again")


def delete(args: argparse.Namespace) -> int:
    """Remove machines and what they stored."""

    async def move(machine: Machine) -> None:
        await machine.delete(force=args.force, undefine=args.undefine)

    return _each(args, move, "deleted")


def wait(args: argparse.Namespace) -> int:
    """Wait until machines are ready, running, paused or stopped, or until jobs have ended."""
    if any("/" in name for name in args.names):
        from . import jobs

        return jobs.wait(args)
    timeout_s = WAIT_S if args.timeout_s is None else args.timeout_s

    async def move(machine: Machine) -> None:
        await machine.wait("ready" if args.goal == "ready" else MachineState(args.goal), timeout_s)

    return _each(args, move, args.goal)


def _each(args: argparse.Namespace, move: Move, done: str) -> int:
    """Move every machine, several at once; one that fails does not hold up the others."""
    return opening.run(_all(args, move, done))


async def _all(args: argparse.Namespace, move: Move, done: str) -> int:
    board = several.Board(json=args.json)
    async with opening.open_controller() as controller:

        async def one(name: str) -> None:
            await move(controller.machine(name))

        async def tell(name: str, _: None, duration_s: float) -> None:
            await board.tell_done(name, done, duration_s)

        return await several.each(args, several.chosen(controller, args), one, tell, board=board)
