"""A folder copied as one stream of tar, into a guest or out of it: whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeAlias, cast

from hostctl_channels.errors import RemoteProtocolError
from hostctl_channels.interface import Channel, PutOptions
from hostctl_channels.transfer import checked, shown

from .exclude import Exclude
from .landing import Landing, Policy
from .packing import Found, Item, Looks, Packing, Plan, scan
from .remote import MAX_LIST, NoTar, Remote, Take
from .tarstream import Entry, Kind, Piece, TarReader

if TYPE_CHECKING:
    from .landing import Landed

__all__ = ["Moved", "TreeProgress", "TreeReport", "counting", "get_tree", "put_tree", "receive"]

_SPOOL_BYTES: Final = 8 << 20  # kept in memory; more goes to an unnamed file


class Moved(NamedTuple):
    """How far a tree is. `total_bytes` is a guess, or None."""

    size_bytes: int
    total_bytes: int | None


TreeProgress: TypeAlias = Callable[[Moved], None]
"""Called from the event loop as content passes; must not block."""


@dataclass(frozen=True, slots=True)
class TreeReport:
    """What was moved. `skipped` are special files and links that were left out, printable.

    Of a sync also: how many files and links were equal, and ("send" or "remove", path) of others.
    """

    files: int
    folders: int
    links: int
    size_bytes: int
    skipped: tuple[str, ...] = ()
    unchanged: int = 0
    changes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_landed(cls, landed: Landed) -> TreeReport:
        """Make one of what has been received."""
        return cls(
            landed.files, landed.folders, landed.links, landed.size_bytes, tuple(landed.skipped)
        )

    @classmethod
    def of_found(cls, found: Found) -> TreeReport:
        """Make one of what has been sent."""
        files = [item for item in found.items if item.is_file]
        return cls(
            len(files),
            sum(item.is_folder for item in found.items) - 1,
            sum(item.is_link for item in found.items),
            sum(item.status.st_size for item in files),
            tuple(found.skipped),
        )


async def put_tree(
    channel: Channel,
    source: Path,
    target: bytes,
    *,
    exclude: Exclude,
    looks: Looks,
    replace: bool = False,
    partial: bool = False,
    progress: TreeProgress | None = None,
) -> TreeReport:
    """Make `target` of the guest a copy of the local folder `source`.

    Raises:
        TransferFailed: it is there (EEXIST) and is not to be replaced, its folder is missing
            (ENOENT), or the guest could not. The target is as it was.
        OSError: something local cannot be read.
    """
    root = os.fsencode(source)
    found = scan(root, exclude)
    remote, how = Remote(channel), "replace" if replace else ""
    try:
        await remote.land(
            target,
            Packing(root, found.items, looks),
            how=how,
            partial=partial,
            owners=looks.owners,
            moved=counting(progress, found.size_bytes),
        )
    except NoTar:
        await _put_one_by_one(channel, root, found, target, looks, how, partial)
    return TreeReport.of_found(found)


async def get_tree(
    channel: Channel,
    source: bytes,
    target: Path,
    *,
    policy: Policy,
    replace: bool = False,
    partial: bool = False,
    progress: TreeProgress | None = None,
) -> TreeReport:
    """Make the local folder `target` a copy of the guest's folder `source`.

    Raises:
        HostileTree: the guest sent what may not be written. OutputTooLarge: too much of it.
        FileExistsError: the target is there and is not to be replaced.
        TransferFailed: the guest could not. The target is as it was after any of them.
    """
    _must_be_new(target, replace)
    remote = Remote(channel)
    total = await remote.size_bytes(source) if progress else None
    with Landing(target, policy, partial=partial) as landing:
        try:
            await receive(
                lambda take: remote.packed(source, policy.exclude.names(), take),
                landing,
                counting(progress, total),
            )
        except NoTar:
            await _get_one_by_one(channel, source, landing)
        landing.commit(replace=replace)
        return TreeReport.of_landed(landing.landed)


def _must_be_new(target: Path, replace: bool) -> None:
    if not replace and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "is there already", str(target))


async def receive(
    send: Callable[[Take], Awaitable[None]],
    landing: Landing,
    moved: Callable[[int], None] | None,
) -> None:
    """Let `send` hand a tar stream to a landing, to its end."""
    reader = TarReader()

    def take(data: bytes) -> None:
        size = 0
        for event in reader.feed(data):
            landing.take(event)
            if isinstance(event, Piece):
                size += len(event.view)
        if moved and size:
            moved(size)

    await send(take)
    reader.close()


def counting(progress: TreeProgress | None, total: int | None) -> Callable[[int], None] | None:
    """Return what sums up pieces for `progress`."""
    if progress is None:
        return None
    done = 0

    def moved(size: int) -> None:
        nonlocal done
        done += size
        progress(Moved(done, total))

    return moved


# --- without tar ------------------------------------------------------------------------------


async def _put_one_by_one(
    channel: Channel,
    root: bytes,
    found: Found,
    target: bytes,
    looks: Looks,
    how: str,
    partial: bool,
) -> None:
    """Put file by file into the stage; a plan of mkdir, ln and chmod does the rest."""
    remote = Remote(channel)
    stage = await remote.stage(target, how, tar=False)
    try:
        mkdirs, plan = Plan(), Plan()
        first: dict[tuple[int, int], bytes] = {}
        folders = sorted(item.path for item in found.items if item.is_folder and item.path)
        mkdirs.add_many((b"mkdir", b"-p"), (b"./tree/" + path for path in folders))
        await remote.ask("lines", stage, input=bytes(mkdirs))
        for item in found.items:
            await _put_item(channel, root, item, stage, looks, first, plan)
        text = bytes(plan)
        await channel.put(io.BytesIO(text), len(text), stage + b"/plan")
    except BaseException:
        await remote.abandon(target, stage, partial=partial)
        raise
    await remote.ask("settle", checked(target), "1" if partial else "", stage, "")


async def _put_item(
    channel: Channel,
    root: bytes,
    item: Item,
    stage: bytes,
    looks: Looks,
    first: dict[tuple[int, int], bytes],
    plan: Plan,
) -> None:
    path = b"./tree/" + item.path if item.path else b"./tree"
    local, status = os.path.join(root, item.path) if item.path else root, item.status
    key = status.st_dev, status.st_ino
    if item.is_link:
        plan.add(b"ln", b"-s", b"--", os.readlink(local), path)
        return
    if item.is_file and status.st_nlink > 1 and key in first:
        plan.add(b"ln", first[key], path)
        return
    if item.is_file:
        first[key] = path
        with _opened(local) as file:
            await channel.put(file, status.st_size, stage + b"/" + path, PutOptions())
    if looks.owners:
        plan.add(b"chown", b"%d:%d" % looks.owner(status), path)
    plan.add(b"look", b"%o" % looks.mode(status), max(0, int(status.st_mtime)), path)


def _opened(path: bytes) -> BinaryIO:
    return open(path, "rb")


async def _get_one_by_one(channel: Channel, source: bytes, landing: Landing) -> None:
    """Ask the guest's shell what there is, and get file by file. Hard links become files."""
    text = await Remote(channel).ask("walk", checked(source), max_bytes=MAX_LIST)
    fields = text.split(b"\0")
    if len(fields) % 3 != 1:
        raise RemoteProtocolError("the guest's list of a folder is broken")
    for at in range(0, len(fields) - 1, 3):
        entry = _entry(*fields[at : at + 3])
        if landing.leaves_out(entry.path):
            continue
        if entry.kind is not Kind.FILE:
            landing.take(entry)
            continue
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            content = cast(BinaryIO, spool)
            path = checked(source) + b"/" + entry.path
            await channel.get(path, content, max_bytes=landing.room_bytes)
            landing.take_file(entry, content)


def _entry(facts: bytes, path: bytes, target: bytes) -> Entry:
    """Read an entry of the list that the shell made; without stat it tells the kind alone."""
    words = facts.decode("ascii", "replace").split(" ")
    kinds = {"d": Kind.FOLDER, "f": Kind.FILE, "l": Kind.SYMLINK}
    try:
        kind, mode, mtime, size = words
        st_mode = 0o644 if mode == "-" else int(mode, 16)
        mtime_s = 0 if mtime == "-" else int(mtime)
        size_bytes = 0 if size == "-" or kind != "f" else int(size)
    except ValueError as err:
        raise RemoteProtocolError(
            f"the guest's list of a folder is broken: {shown(facts[:80])}"
        ) from err
    if mode == "-" and kind == "d":
        st_mode = 0o755
    return Entry(
        kinds.get(kind, Kind.OTHER), path, stat.S_IMODE(st_mode), mtime_s, size_bytes, target
    )
