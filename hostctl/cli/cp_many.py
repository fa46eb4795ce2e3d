"""`hostctl cp` with several machines: a source that is read once, or a folder for each machine."""

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from hostctl.group import landing, own_folder
from hostctl.localfile import SharedSource
from hostctl.machine import Machine
from hostctl_channels.interface import FileInfo

from . import cp, opening, several
from .exits import UsageError
from .progress import meter

Landed = tuple[str, FileInfo]
Progress = Callable[[int], None]
Copy = Callable[[Machine, Progress], Awaitable[Landed]]


def put(args: argparse.Namespace, source: str, names: str, destination: str) -> int:
    """Carry one local file, or standard input, into every machine."""
    # Opened before the event loop runs: reading a pipe to its end must obey Ctrl-C.
    with cp.opened(source) as file:
        file.seek(0)  # a pipe was copied, and left at its end
        return _put(args, source, names, destination, file)


def _put(
    args: argparse.Namespace, source: str, names: str, destination: str, file: BinaryIO
) -> int:
    with SharedSource(file) as shared:
        mode, mtime_s = cp.attributes(args, source, file)

        async def one(machine: Machine, bar: Progress) -> Landed:
            async def attempt(path: str) -> FileInfo:
                return await machine.put(
                    shared.view(),
                    os.fsencode(path),
                    mode=mode,
                    mtime_s=mtime_s,
                    verify=args.verify,
                    progress=bar,
                )

            name = "" if source == cp.STANDARD else os.path.basename(source)
            return await cp.into(destination, name, attempt)

        return opening.run(_copy(args, names, one, source, shared.size_bytes))


def get(args: argparse.Namespace, names: str, source: str, destination: str) -> int:
    """Carry one file out of every machine, into a folder of its own: DESTINATION/NAME/FILE."""
    if destination == cp.STANDARD or os.path.isfile(destination):
        raise UsageError(f"cp: {destination}: files of several machines need a folder")
    landing(Path(destination), "", source)

    async def one(machine: Machine, bar: Progress) -> Landed:
        with own_folder(landing(Path(destination), machine.name, source)) as target:
            info = await machine.get(
                os.fsencode(source),
                str(target),
                stat=args.preserve,
                verify=args.verify,
                progress=bar,
            )
        cp.set_attributes(args, str(target), info)
        return str(target), info

    return opening.run(_copy(args, names, one, source, None))


async def _copy(
    args: argparse.Namespace, names: str, one: Copy, source: str, size_bytes: int | None
) -> int:
    board = several.Board(json=args.json)
    is_put = size_bytes is not None
    async with opening.open_controller() as controller:
        chosen = several.choose(controller, [names], allow_empty=args.allow_empty)
        total = None if size_bytes is None else size_bytes * len(chosen.names)
        with meter(args, cp.title(source), total) as bar:
            sum_of = _Sum(bar)

            async def copy(name: str) -> Landed:
                machine = opening.machine(controller, name, args.channel)
                machine.steal = args.steal
                return await one(machine, sum_of.part(name))

            async def tell(name: str, landed: Landed, duration_s: float) -> None:
                path, info = landed
                ours = cp.Place(None, source if is_put else path)
                theirs = cp.Place(name, path if is_put else source)
                ends = (ours, theirs) if is_put else (theirs, ours)
                event = {"event": "copied", "name": name, **cp.as_json(*ends, info, duration_s)}
                await board.tell(event, f"{ends[0]} copied to {ends[1]}")

            return await several.each(args, chosen, copy, tell, board=board)


class _Sum:
    """Adds up the progress of many for one bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._moved: dict[str, int] = {}
        self._total = 0

    def part(self, name: str) -> Progress:
        """Return what one of them calls with the bytes it has moved."""

        def moved(size_bytes: int) -> None:
            self._total += size_bytes - self._moved.get(name, 0)
            self._moved[name] = size_bytes
            self._bar(self._total)

        return moved
