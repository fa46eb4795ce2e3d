"""`hostctl console`: the serial console of a machine, here on our terminal. Ctrl-] leaves."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostctl.errors import BackendError, Busy

from . import opening, render

LEAVE: Final = b"\x1d"  # Ctrl-], as telnet, virsh console and conserver have it


def console(args: argparse.Namespace) -> int:
    """Attach to the console, or print its log."""
    return opening.run(_log(args) if args.log else _attach(args))


async def _log(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        log = controller.machine(args.name).console_log
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        while chunk := file.read(2**16):
            sys.stdout.buffer.write(chunk)
    return 0


async def _attach(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        socket = controller.machine(args.name).console_socket
    with _alone(args.name, socket):
        reader, writer = await _connect(args.name, socket)
        render.talk(f"console of {args.name}; Ctrl-] leaves")
        try:
            with _raw_terminal():
                left = await _carry(reader, writer)
        finally:
            writer.close()
    if not left:
        render.talk(f"console of {args.name} closed: the machine has stopped")
    return 0


@contextlib.contextmanager
def _alone(name: str, socket: Path) -> Iterator[None]:
    """Hold the console for ourselves: QEMU would leave a second client waiting without a word."""
    if not socket.parent.is_dir():
        yield  # no machine runs; connecting will say so
        return
    with socket.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise Busy(f"the console of {name}", None) from err
        yield


async def _connect(name: str, path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(path)
    except OSError as err:
        raise BackendError(
            f"cannot attach to the console of {name}: {(err.strerror or str(err)).lower()}",
            hint=f"is it running? hostctl start {name}; what it said: hostctl console --log {name}",
        ) from err


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Carry bytes both ways; return whether the user left, rather than the machine."""
    loop = asyncio.get_running_loop()
    left = asyncio.Event()

    def typed() -> None:
        data = os.read(0, 4096)
        before, key, _ = data.partition(LEAVE)
        writer.write(before)
        if key or not data:
            left.set()

    loop.add_reader(0, typed)
    show = asyncio.create_task(_show(reader))
    leave = asyncio.create_task(left.wait())
    try:
        await asyncio.wait((show, leave), return_when=asyncio.FIRST_COMPLETED)
        return left.is_set()
    finally:
        loop.remove_reader(0)
        show.cancel()
        leave.cancel()


async def _show(reader: asyncio.StreamReader) -> None:
    while data := await reader.read(2**16):
        os.write(1, data)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Send each key at once, Ctrl-C too; put the terminal back in any case."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
