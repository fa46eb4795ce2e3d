"""`hostctl console`: the serial console of a machine, here on our terminal. Ctrl-] leaves."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostctl.errors import BackendError, Busy, ChannelError
from hostctl_channels.links.interface import Endpoint, Link

from . import opening, render, terminal
from .exec import Taps, read_stdin

MAX_HISTORY: Final = 1 << 20
LEAVE: Final = b"\x1d"  # Ctrl-], as telnet, virsh console and conserver have it


def console(args: argparse.Namespace) -> int:
    """Attach to the console, or print its log."""
    return opening.run(_log(args) if args.log else _attach(args))


async def _log(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        log = await controller.machine(args.name).fetch_console_log()
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        while chunk := file.read(2**16):
            sys.stdout.buffer.write(chunk)
    return 0


async def _attach(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        machine = controller.machine(args.name)
        machine.steal = args.steal
        with _alone(args.name, machine.console_socket):
            link = await _connect(args.name, await machine.console_endpoint())
            try:
                with terminal.raw():  # its lines have ends as terminals have them
                    await Taps().write(1, _tail(await machine.fetch_console_log(), args.history))
                render.talk(f"console of {args.name}; Ctrl-] leaves")
                with terminal.raw():
                    left = await _carry(link)
            finally:
                link.close()
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


async def _connect(name: str, endpoint: Endpoint) -> Link:
    try:
        return await endpoint.open()
    except ChannelError as err:
        raise BackendError(
            f"cannot attach to the console of {name}: {err}",
            hint=f"is it running? hostctl start {name}; what it said: hostctl console --log {name}",
        ) from err


async def _carry(link: Link) -> bool:
    """Carry bytes both ways; return whether the user left, rather than the machine."""
    type_ = asyncio.create_task(_type(link))
    show = asyncio.create_task(_show(link))
    try:
        await asyncio.wait((show, type_), return_when=asyncio.FIRST_COMPLETED)
        return type_.done() and type_.exception() is None
    finally:
        show.cancel()
        type_.cancel()
        await asyncio.gather(show, type_, return_exceptions=True)


async def _type(link: Link) -> None:
    """Send what is typed; return when the user leaves."""
    while data := await read_stdin():
        before, key, _ = data.partition(LEAVE)
        await link.send(before)
        if key:
            return


async def _show(link: Link) -> None:
    taps = Taps()
    buffer = bytearray(2**16)
    while size := await link.receive_into(buffer):
        await taps.write(1, bytes(buffer[:size]))


def _tail(log: Path, lines: int) -> bytes:
    """Return the last lines of the console's log: what was said before we came."""
    size = min(lines * 256, MAX_HISTORY)  # long lines make them fewer
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        found = file.read(size).splitlines(keepends=True)
        return b"".join(found[-lines:] if lines else ())
    return b""
