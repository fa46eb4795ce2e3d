"""`hostctl shell` and `exec -t`: a terminal in a machine, here on ours. Enter ~. leaves.

The pieces: `_show` (what the guest shows), `_type` (our keys), `_follow_window` (our size). What
must be put back afterwards is terminal.py's.
"""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

from hostctl_channels.errors import ChannelError, GuestError
from hostctl_channels.terminal import TOOLS, Terminal

from . import opening, render, terminal, units
from .exec import Taps, exit_code, parse_env, read_stdin
from .exits import Exit

SETTLE_S = 0.05  # a window that is dragged changes often


def shell(args: argparse.Namespace) -> int:
    """Open a shell, or run a command, at a terminal if the guest can make one."""
    argv = tuple(map(os.fsencode, args.command))
    env = dict(map(parse_env, args.env))
    args.timeout_s = None
    return opening.run(_run(args, argv, env, plain=not argv))


def run_at_terminal(
    args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]
) -> int:
    """Run the command of `exec -t`."""
    return opening.run(_run(args, argv, env, plain=False))


async def _run(
    args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes], *, plain: bool
) -> int:
    rows, columns = terminal.window()
    async with opening.open_controller() as controller:
        machine = opening.machine(controller, args.name, args.channel)
        machine.steal = args.steal
        async with machine.terminal(
            *argv,
            rows=rows,
            columns=columns,
            env=_ours() | env,
            cwd=args.workdir,
            user=args.user,
            timeout_s=args.timeout_s,
            plain=plain,
        ) as theirs:
            _introduce(args.name, theirs, is_shell=not argv)
            is_left = await _converse(theirs)
            if is_left:
                return Exit.HANGUP
            status = await theirs.wait()
    if status.timed_out:
        limit = units.show_duration(args.timeout_s or 0)
        render.say(f"exec on {args.name}: timed out after {limit}, the command was killed")
    return exit_code(status)


def _ours() -> dict[bytes, bytes]:
    """Return what the guest must know of our terminal."""
    found = {name: os.environb[name] for name in (b"TERM", b"COLORTERM") if name in os.environb}
    return {b"TERM": b"xterm"} | found


def _introduce(name: str, theirs: Terminal, *, is_shell: bool) -> None:
    if not theirs.is_real:
        wanted = ", ".join(TOOLS)
        render.say(
            f"{name} has no tool that makes a terminal ({wanted}): "
            "line by line, with no job control; Ctrl-D leaves"
        )
    elif is_shell and os.isatty(0):
        render.talk(f"shell on {name}; Enter ~. leaves")


async def _converse(theirs: Terminal) -> bool:
    """Carry text and keys until the command ended or the user left; return whether he left."""
    screen = terminal.Screen()
    with terminal.raw(theirs.is_real):
        try:
            async with _following(theirs):
                return await _carry(theirs, screen)
        finally:
            if (undo := screen.undo()) and os.isatty(1):
                os.write(1, undo)


async def _carry(theirs: Terminal, screen: terminal.Screen) -> bool:
    show = asyncio.create_task(_show(theirs, screen))
    type_ = asyncio.create_task(_type(theirs))
    try:
        await asyncio.wait((show, type_), return_when=asyncio.FIRST_COMPLETED)
        if type_.done() and not show.done() and type_.result():
            return True
        await show
        return False
    finally:
        for task in (show, type_):
            task.cancel()
        await asyncio.gather(show, type_, return_exceptions=True)


async def _show(theirs: Terminal, screen: terminal.Screen) -> None:
    taps = Taps()
    while (text := await theirs.read()) is not None:
        screen.watch(text)
        await taps.write(1, text)


async def _type(theirs: Terminal) -> bool:
    """Send what is typed; return True when the user leaves, False when there are no more keys."""
    escape = terminal.Escape() if os.isatty(0) else None
    try:
        while keys := await read_stdin():
            typed = escape.feed(keys) if escape else keys
            if typed:
                await theirs.write(typed)
            if escape and escape.is_left:
                return True
            if escape and escape.wants_help:
                os.write(1, terminal.HELP)
        await theirs.close_stdin()
    except (ChannelError, GuestError):
        pass  # it is over, or its line is cut: whoever reads what it shows will tell which
    return False


@contextlib.asynccontextmanager
async def _following(theirs: Terminal) -> AsyncIterator[None]:
    """Give the guest's terminal our window's size whenever that changes.

    Where it has no terminal, Ctrl-C is no key, and is sent as the signal it is here.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    window = asyncio.create_task(_follow_window(theirs, changed))
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    sent: set[asyncio.Task[None]] = set()
    if not theirs.is_real:
        loop.add_signal_handler(signal.SIGINT, lambda: sent.add(_interrupting(theirs)))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        if not theirs.is_real:
            loop.remove_signal_handler(signal.SIGINT)
        window.cancel()
        await asyncio.gather(window, *sent, return_exceptions=True)


def _interrupting(theirs: Terminal) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(theirs.signal("INT"))


async def _follow_window(theirs: Terminal, changed: asyncio.Event) -> None:
    known = terminal.window()
    while True:
        await changed.wait()
        changed.clear()
        await asyncio.sleep(SETTLE_S)
        if (found := terminal.window()) != known:
            with contextlib.suppress(ChannelError, GuestError):  # all ports may be at work
                await theirs.resize(*found)
                known = found
