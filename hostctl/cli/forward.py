"""`hostctl forward`: connections to this host's loopback, or to a path, carried into a machine."""

import argparse
import asyncio
import contextlib
import re
from typing import Final

from . import opening, render
from .exits import UsageError

_PORT: Final = re.compile(r"(\d{1,5}):(.+)")
_PATH: Final = re.compile(r"(.*/[^:]*|[^:]+):(/.*|(?:[^/:]+:)?\d{1,5})")


def forward(args: argparse.Namespace) -> int:
    """Forward until a signal ends it."""
    pairs = [parse(text) for text in args.forwards]
    return opening.run(_forward(args, pairs))


def parse(text: str) -> tuple[int | str, str]:
    """Read LOCAL:GUEST: a port or a path of ours, then PORT, HOST:PORT or /PATH of the guest.

    Raises:
        UsageError: it is something else.
    """
    if port := _PORT.fullmatch(text):
        return int(port[1]), port[2]
    if path := _PATH.fullmatch(text):
        return path[1], path[2]
    raise UsageError(
        f'forward: "{text}" is no LOCAL:GUEST; '
        "write it like 8080:80, 8080:/run/app.sock or ./app.sock:80"
    )


async def _forward(args: argparse.Namespace, pairs: list[tuple[int | str, str]]) -> int:
    async with opening.open_controller() as controller, contextlib.AsyncExitStack() as stack:
        machine = opening.machine(controller, args.name, args.channel)
        machine.steal = args.steal
        for local, guest in pairs:
            listening = machine.forward(
                local, guest, max_connections=args.max_connections, trouble=_complain
            )
            found = await stack.enter_async_context(listening)
            print(f"{found} -> {args.name}:{found.target}", flush=True)
        render.talk("Ctrl-C ends it")
        await asyncio.Event().wait()
    return 0


def _complain(error: Exception) -> None:
    render.say(render.error_line(error))
