"""`hostctl cp`: files into a machine, or out of it; folders and several at once are trees.py's.

Owns what `cp` means by its words; the transfer itself, and that it is whole or not there at all,
is the machine's.
"""

import argparse
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple, cast

from hostctl.errors import TransferFailed
from hostctl.machine import Machine
from hostctl_channels.interface import FileInfo

from . import opening, render, several
from .exits import UsageError
from .progress import meter

STANDARD: Final = "-"
# One machine's name, or what pattern.py takes for several; a path to be taken for a file has a
# slash before the colon.
_REMOTE: Final = re.compile(r"([A-Za-z0-9@*?[][A-Za-z0-9._*?![\],@-]*):(.*)", re.DOTALL)
_MAGIC: Final = frozenset("*?[")
_ALL: Final = 0o777  # what a guest may set of a host file's mode: no setuid, no setgid, no sticky


class Place(NamedTuple):
    """One end of a copy; `machine` is None on this side of the glass."""

    machine: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.machine is None else f"{self.machine}:{self.path}"


def cp(args: argparse.Namespace) -> int:
    """Copy files, and folders with -r."""
    sources = [parse_place(text) for text in args.sources]
    destination = parse_place(args.destination)
    for source in sources:
        if (source.machine is None) == (destination.machine is None):
            raise UsageError(not_across("cp", source, destination))
    if len({source.machine for source in sources}) > 1:
        raise UsageError("cp: the sources are in different machines; copy from one at a time")
    is_simple = not (args.recursive or len(sources) > 1 or is_pattern(sources[0]))
    is_group = several.is_group([sources[0].machine or destination.machine or ""])
    if is_group and args.resume:
        raise UsageError("cp: --resume is for one machine; run it for those that broke off")
    if is_simple:
        return (_cp_group if is_group else _cp_one)(args, sources[0], destination)
    from . import trees

    return trees.copy_many(args, sources, destination)


def _cp_one(args: argparse.Namespace, source: Place, destination: Place) -> int:
    if source.machine is not None:
        return opening.run(_copy(args, source, destination, None))
    # Opened before the event loop runs: reading a terminal or a pipe to its end must obey Ctrl-C.
    with opened(source.path) as file:
        return opening.run(_copy(args, source, destination, file))


def _cp_group(args: argparse.Namespace, source: Place, destination: Place) -> int:
    from . import cp_many

    if source.machine is not None:
        return cp_many.get(args, source.machine, source.path, destination.path)
    assert destination.machine is not None
    return cp_many.put(args, source.path, destination.machine, destination.path)


async def put_one(machine: Machine, args: argparse.Namespace, source: str, target: str) -> None:
    """Carry one local file in."""
    began = time.monotonic()
    with opened(source) as file:
        landed, info = await _put(machine, args, source, file, target)
    _tell(args, Place(None, source), Place(machine.name, landed), info, began)


async def get_one(machine: Machine, args: argparse.Namespace, source: str, target: str) -> None:
    """Carry one of a guest's files out."""
    began = time.monotonic()
    landed, info = await _get(machine, args, source, target)
    _tell(args, Place(machine.name, source), Place(None, landed), info, began)


def is_pattern(place: Place) -> bool:
    """Tell whether a place is to be expanded by its guest's shell."""
    return place.machine is not None and not _MAGIC.isdisjoint(place.path)


def parse_place(text: str) -> Place:
    """Read `NAME:FILE`, `FILE` or `-`. A colon after a slash belongs to a file name, as with scp.

    Raises:
        UsageError: no file.
    """
    match = _REMOTE.fullmatch(text)
    machine, path = match.groups() if match else (None, text)
    if not path:
        raise UsageError(f'cp: "{text}" names no file; write {machine or "NAME"}:/path/of/file')
    return Place(machine, path)


async def _copy(
    args: argparse.Namespace, source: Place, destination: Place, file: BinaryIO | None
) -> int:
    began = time.monotonic()
    async with opening.open_controller() as controller:
        name = source.machine or destination.machine or ""
        machine = opening.machine(controller, name, args.channel)
        machine.steal = args.steal
        if file is None:
            target, info = await _get(machine, args, source.path, destination.path)
        else:
            target, info = await _put(machine, args, source.path, file, destination.path)
    _tell(args, source, Place(destination.machine, target), info, began)
    return 0


async def _put(
    machine: Machine, args: argparse.Namespace, source: str, file: BinaryIO, destination: str
) -> tuple[str, FileInfo]:
    """Carry a local file in; a folder at the destination gets it under its own name."""
    size_bytes = os.fstat(file.fileno()).st_size
    mode, mtime_s = attributes(args, source, file)

    async def attempt(path: str) -> FileInfo:
        file.seek(0)
        with meter(args, title(source), size_bytes) as bar:
            return await machine.put(
                file,
                os.fsencode(path),
                mode=mode,
                mtime_s=mtime_s,
                verify=args.verify,
                resume=args.resume,
                progress=bar,
            )

    name = "" if source == STANDARD else os.path.basename(source)
    return await into(destination, name, attempt)


async def into(
    destination: str, name: str, attempt: Callable[[str], Awaitable[FileInfo]]
) -> tuple[str, FileInfo]:
    """Try the destination, and `name` inside it when it is a folder."""
    if destination.endswith("/"):
        if not name:
            raise UsageError(f"cp: {destination}: standard input has no name; name the file too")
        destination += name
        return destination, await attempt(destination)
    try:
        return destination, await attempt(destination)
    except TransferFailed as err:
        if err.errno != errno.EISDIR or not name:
            raise
    destination = f"{destination}/{name}"
    return destination, await attempt(destination)


async def _get(
    machine: Machine, args: argparse.Namespace, source: str, destination: str
) -> tuple[str, FileInfo]:
    """Carry a guest's file out, to the path that was named or into the folder that was."""
    target = _local_target(source, destination)
    sink: BinaryIO | str = sys.stdout.buffer if target == STANDARD else target
    try:
        with meter(args, title(source), None) as bar:
            info = await machine.get(
                os.fsencode(source),
                sink,
                stat=args.preserve,
                verify=args.verify,
                resume=args.resume,
                progress=bar,
            )
    except TransferFailed as err:
        if err.errno == errno.EISDIR:
            raise _folder(f"{machine.name}:{source}") from err
        raise
    if target != STANDARD:
        set_attributes(args, target, info)
    return target, info


def _local_target(source: str, destination: str) -> str:
    if destination == STANDARD or not (destination.endswith("/") or os.path.isdir(destination)):
        return destination
    if not os.path.isdir(destination):
        raise FileNotFoundError(errno.ENOENT, "no such folder", destination)
    name = os.path.basename(source)
    if name in ("", ".", ".."):
        raise _folder(source)
    return os.path.join(destination, name)


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """Open a local source; what has no size of its own (a pipe) is spooled to a nameless file."""
    standard = source == STANDARD
    with open(0 if standard else _checked(source), "rb", closefd=not standard) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not file.tell():
            yield file
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool, 2**20)
            spool.flush()
            yield cast(BinaryIO, spool)


def _checked(source: str) -> str:
    if os.path.isdir(source):
        raise _folder(source)
    return source


def attributes(
    args: argparse.Namespace, source: str, file: BinaryIO
) -> tuple[int | None, float | None]:
    """Return the mode and time the copy gets; None leaves them to the guest."""
    if not args.preserve or source == STANDARD:
        return args.mode, None
    found = os.fstat(file.fileno())
    return stat.S_IMODE(found.st_mode) if args.mode is None else args.mode, found.st_mtime


def set_attributes(args: argparse.Namespace, path: str, info: FileInfo) -> None:
    """Give a fetched file what was asked for. The guest's word on permissions is cut to rwx."""
    if args.preserve and (info.mode is None or info.mtime_s is None):
        render.say(f"{path}: the guest cannot tell permissions and times; they were not kept")
    mode = args.mode
    if mode is None and args.preserve and info.mode is not None:
        mode = info.mode & _ALL
    if mode is not None:
        os.chmod(path, mode)
    if args.preserve and info.mtime_s is not None:
        os.utime(path, (info.mtime_s, info.mtime_s))


def _folder(path: str) -> UsageError:
    return UsageError(f"cp: {path} is a folder; copy it with -r")


def not_across(command: str, source: Place, destination: Place) -> str:
    """Say that exactly one end must be in a machine."""
    if source.machine is None:
        return (
            f"{command}: neither {source} nor {destination} is in a machine; "
            "write one of them as NAME:/path"
        )
    return f"{command}: {source} and {destination} are both in machines; copy to this host first"


def title(source: str) -> str:
    return "standard input" if source == STANDARD else os.path.basename(source) or source


def _tell(
    args: argparse.Namespace, source: Place, destination: Place, info: FileInfo, began: float
) -> None:
    if args.json:
        render.json_out(as_json(source, destination, info, time.monotonic() - began))


def as_json(
    source: Place, destination: Place, info: FileInfo, duration_s: float
) -> dict[str, object]:
    return {
        "source": str(source),
        "destination": str(destination),
        "size_bytes": info.size_bytes,
        "duration_s": round(duration_s, 3),
        "sha256": info.sha256,
        "mode": None if info.mode is None else f"{info.mode:04o}",
        "mtime_s": info.mtime_s,
    }
