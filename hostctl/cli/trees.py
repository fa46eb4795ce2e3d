"""`hostctl cp -r`, several sources, patterns of the guest; and `hostctl sync`."""

import argparse
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hostctl.errors import TransferFailed
from hostctl.group import own_folder
from hostctl.machine import Machine
from hostctl_channels.transfer import shown

from . import cp, opening, render, several, units
from .cp import Place
from .exits import UsageError
from .progress import TreeMeter, meter

if TYPE_CHECKING:
    from hostctl.tree.copy import TreeReport


def copy_many(args: argparse.Namespace, sources: Sequence[Place], destination: Place) -> int:
    """Copy files and folders to one place."""
    return opening.run(_copy_many(args, sources, destination))


def sync(args: argparse.Namespace) -> int:
    """Move what changed in a folder."""
    source, destination = cp.parse_place(args.source), cp.parse_place(args.destination)
    if (source.machine is None) == (destination.machine is None):
        raise UsageError(cp.not_across("sync", source, destination))
    return opening.run(_sync(args, source, destination))


async def _copy_many(args: argparse.Namespace, sources: Sequence[Place], destination: Place) -> int:
    async def one(machine: Machine, is_group: bool) -> None:
        if destination.machine is None:
            paths = await _expanded(machine, sources)
            with _own(args, destination.path, machine.name if is_group else "") as here:
                await _get_all(machine, args, paths, here)
        else:
            paths = [source.path for source in sources]
            await _put_all(machine, args, paths, destination.path)

    return await _each(args, sources[0].machine or destination.machine or "", one)


async def _each(
    args: argparse.Namespace, word: str, one: Callable[[Machine, bool], Awaitable[None]]
) -> int:
    """Do `one` to each machine that `word` means; it is told whether that may be several."""
    async with opening.open_controller() as controller:
        chosen = several.choose(controller, [word], allow_empty=args.allow_empty)
        if chosen.is_group and args.progress != "json":
            args.progress = "none"  # bars on one line would overwrite each other

        async def act(name: str) -> None:
            machine = opening.machine(controller, name, args.channel)
            machine.steal = args.steal
            await one(machine, chosen.is_group)

        async def tell(name: str, _: None, duration_s: float) -> None:
            if chosen.is_group and not args.json:
                render.talk(f"{name}: done ({units.show_duration(duration_s)})")

        return await several.each(args, chosen, act, tell)


@contextlib.contextmanager
def _own(args: argparse.Namespace, destination: str, name: str) -> Iterator[str]:
    """Make a folder for what comes of one machine of several; of one that fails none is left."""
    folder = os.path.join(destination, name, "") if name else destination
    if not name or ("dry_run" in args and args.dry_run):
        yield folder
        return
    with own_folder(Path(folder, "any")):
        yield folder


async def _expanded(machine: Machine, sources: Sequence[Place]) -> list[str]:
    """Return the guest's paths, patterns expanded."""
    found: list[str] = []
    for source in sources:
        if not cp.is_pattern(source):
            found.append(source.path)
            continue
        matches = await machine.glob(os.fsencode(source.path))
        if not matches:
            text = f"{source}: nothing in the guest matches"
            raise TransferFailed(2, text, path=os.fsencode(source.path))
        found += map(os.fsdecode, matches)
    return found


async def _get_all(
    machine: Machine, args: argparse.Namespace, paths: Sequence[str], destination: str
) -> None:
    """Carry files and folders out. Each gets its own name in a folder that is there."""
    if len(paths) > 1 and not os.path.isdir(destination):  # noqa: ASYNC240 a local look
        raise UsageError(f"cp: {destination} is no folder, and there is more than one source")
    targets = [_local_target(path, destination) for path in paths]
    if len(set(targets)) < len(targets):
        raise UsageError("cp: two of the sources have the same name; copy them one by one")
    for path, target in zip(paths, targets, strict=True):
        kind = await machine.kind_of(os.fsencode(path))
        if kind == "folder":
            _must_recurse(args, f"{machine.name}:{path}")
            await _get_tree(machine, args, path, target)
        else:
            await cp.get_one(machine, args, path, target)


async def _put_all(
    machine: Machine, args: argparse.Namespace, paths: Sequence[str], destination: str
) -> None:
    """Carry files and folders in."""
    is_folder = destination.endswith("/")
    if not is_folder:
        is_folder = await machine.kind_of(os.fsencode(destination)) == "folder"
    if len(paths) > 1 and not is_folder:
        raise UsageError(f"cp: {destination} is no folder, and there is more than one source")
    for path in paths:
        name = os.path.basename(os.path.realpath(path))  # noqa: ASYNC240 of "." too
        target = f"{destination.rstrip('/')}/{name}" if is_folder else destination
        if os.path.isdir(path):  # noqa: ASYNC240 a local look
            _must_recurse(args, path)
            await _put_tree(machine, args, path, target)
        else:
            await cp.put_one(machine, args, path, target)


async def _put_tree(machine: Machine, args: argparse.Namespace, source: str, target: str) -> None:
    began = time.monotonic()
    with meter(args, source, None) as bar:
        report = await machine.put_tree(
            source,
            os.fsencode(target),
            exclude=args.exclude,
            replace=args.replace,
            partial=args.partial,
            owners=args.owners,
            progress=TreeMeter(bar),
        )
    _tell(args, Place(None, source), Place(machine.name, target), report, began)


async def _get_tree(machine: Machine, args: argparse.Namespace, source: str, target: str) -> None:
    began = time.monotonic()
    with meter(args, source, None) as bar:
        report = await machine.get_tree(
            os.fsencode(source),
            target,
            exclude=args.exclude,
            replace=args.replace,
            partial=args.partial,
            links=args.links,
            owners=args.owners,
            max_bytes=args.max_bytes,
            max_files=args.max_files,
            progress=TreeMeter(bar),
        )
    _tell(args, Place(machine.name, source), Place(None, target), report, began)


async def _sync(args: argparse.Namespace, source: Place, destination: Place) -> int:
    async def one(machine: Machine, is_group: bool) -> None:
        prefix = f"{machine.name}: " if is_group else ""
        if source.machine is None:
            there = Place(machine.name, destination.path)
            await _sync_one(args, machine, source, there, prefix=prefix)
            return
        with _own(args, destination.path, machine.name if is_group else "") as here:
            theirs = Place(machine.name, source.path)
            await _sync_one(args, machine, theirs, Place(None, here), prefix=prefix)

    return await _each(args, source.machine or destination.machine or "", one)


async def _sync_one(
    args: argparse.Namespace, machine: Machine, source: Place, destination: Place, *, prefix: str
) -> None:
    began = time.monotonic()
    with meter(args, source.path, None) as bar:
        if source.machine is None:
            report = await machine.sync_to(
                source.path,
                os.fsencode(destination.path),
                exclude=args.exclude,
                delete=args.delete,
                checksum=args.checksum,
                dry_run=args.dry_run,
                progress=TreeMeter(bar),
            )
        else:
            report = await machine.sync_from(
                os.fsencode(source.path),
                destination.path,
                exclude=args.exclude,
                delete=args.delete,
                checksum=args.checksum,
                dry_run=args.dry_run,
                links=args.links,
                max_bytes=args.max_bytes,
                max_files=args.max_files,
                progress=TreeMeter(bar),
            )
    if args.dry_run and not args.json:
        for what, path in report.changes:
            print(f"{prefix}{what} {path}")
    _tell(args, source, destination, report, began)


def _local_target(source: str, destination: str) -> str:
    """Return where a guest's file or folder lands: never under a name that leads elsewhere."""
    name = os.path.basename(source.rstrip("/"))
    if not destination.endswith("/") and not os.path.isdir(destination):
        return destination
    if not os.path.isdir(destination):
        raise FileNotFoundError(2, "no such folder", destination)
    if name in ("", ".", ".."):
        raise UsageError(f"cp: {source} has no name of its own; name the destination in full")
    return os.path.join(destination, name)


def _must_recurse(args: argparse.Namespace, path: str) -> None:
    if not args.recursive:
        raise UsageError(f"cp: {path} is a folder; copy it with -r")
    if args.resume:
        raise UsageError("cp: --resume is for single files; continue a folder by hostctl sync")
    if args.verify:
        raise UsageError("cp: --verify is for single files; compare a folder by sync --checksum")


def _tell(
    args: argparse.Namespace,
    source: Place,
    destination: Place,
    report: "TreeReport",
    began: float,
) -> None:
    for path in report.skipped:
        render.say(f"{source}: {path} was left out")
    if args.json:
        render.json_out(
            {
                "source": str(source),
                "destination": str(destination),
                "files": report.files,
                "folders": report.folders,
                "links": report.links,
                "size_bytes": report.size_bytes,
                "unchanged": report.unchanged,
                "changes": [[what, path] for what, path in report.changes],
                "skipped": list(report.skipped),
                "duration_s": round(time.monotonic() - began, 3),
            }
        )
    elif report.unchanged or report.changes:
        render.talk(f"{shown(os.fsencode(str(source)))}: {_sum(report)}")


def _sum(report: "TreeReport") -> str:
    removed = sum(what == "remove" for what, _ in report.changes)
    return f"{report.files} sent, {report.unchanged} unchanged, {removed} removed"
