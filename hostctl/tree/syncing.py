"""Only what changed: two folders compared, and the difference moved as one stream.

Nothing of the destination changes before all has arrived; then each file takes its place by one
rename. Names with a newline are not seen in a guest, for its tools tell names by the line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hostctl_channels.errors import TransferFailed
from hostctl_channels.interface import Channel
from hostctl_channels.transfer import shown

from ..errors import OutputTooLarge
from .beneath import checked_path
from .copy import TreeProgress, TreeReport, counting, receive
from .exclude import Exclude
from .landing import Landing, Policy
from .packing import Found, Item, Looks, Packing, Plan, scan
from .remote import Fact, Remote
from .tarstream import Entry, Kind, TarReader

__all__ = ["sync_from", "sync_to"]


@dataclass(slots=True)
class Difference:
    """What makes a destination equal to its source. Paths are relative to both."""

    send: list[bytes] = field(default_factory=list)  # files and links
    make: list[bytes] = field(default_factory=list)  # folders that are missing, outer ones first
    dress: set[bytes] = field(default_factory=set)  # folders whose mode or time differ or will
    doomed: list[bytes] = field(default_factory=list)  # what goes, with all that is in it
    unchanged: int = 0

    def __bool__(self) -> bool:
        return bool(self.send or self.make or self.dress or self.doomed)

    def changes(self) -> tuple[tuple[str, str], ...]:
        """Return it for people."""
        sent = [("send", shown(path)) for path in (*self.make, *self.send)]
        return (*sent, *(("remove", shown(path)) for path in self.doomed))


SameContent = Callable[[bytes], bool]


async def sync_to(
    channel: Channel,
    source: Path,
    target: bytes,
    *,
    exclude: Exclude,
    looks: Looks,
    delete: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    progress: TreeProgress | None = None,
) -> TreeReport:
    """Make the guest's folder `target` equal to the local `source`; see `Guest.sync_to`."""
    root, remote = os.fsencode(source), Remote(channel)
    found = scan(root, exclude)
    items = {item.path: item for item in found.items}
    ours = {path: _fact(item) for path, item in items.items()}
    theirs = await _their_facts(remote, target, exclude)
    same = await _same_in_guest(remote, root, target, ours, theirs, checksum)
    found_difference = compare(ours, theirs, same, checksum=checksum, delete=delete)
    _join_hardlinks(found_difference, found)
    if found_difference and not dry_run:
        chosen = set(found_difference.send)
        send = Found([item for item in found.items if item.path in chosen])
        moved = counting(progress, send.size_bytes)
        plan = _plan(found_difference, items, looks)
        packing = Packing(root, send.items, looks, plan)
        await remote.land(target, packing, how="into", owners=looks.owners, moved=moved)
    return _report(found_difference, ours, tuple(found.skipped))


async def sync_from(
    channel: Channel,
    source: bytes,
    target: Path,
    *,
    policy: Policy,
    delete: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    progress: TreeProgress | None = None,
) -> TreeReport:
    """Make the local folder `target` equal to the guest's `source`; see `Guest.sync_from`."""
    remote, root = Remote(channel), os.fsencode(target)
    theirs = _checked(await remote.facts(source), policy)
    is_there, found = _local(target, policy.exclude)
    ours = {item.path: _fact(item) for item in found.items}
    same = await _same_in_guest(remote, root, source, ours, theirs, checksum)
    skipped = tuple(shown(path) for path, fact in theirs.items() if fact.kind == "o")
    wanted = {path: fact for path, fact in theirs.items() if fact.kind != "o"}
    difference = compare(wanted, ours, same, checksum=checksum, delete=delete)
    if (difference or not is_there) and not dry_run:
        only = frozenset(difference.send)
        with Landing(target, policy, inside=is_there, only=only) as landing:
            await _pick(remote, source, difference.send, theirs, landing, progress)
            folders = sorted({*difference.make, *difference.dress})
            landing.merge([(p, _folder_entry(p, theirs[p])) for p in folders], difference.doomed)
            skipped += tuple(landing.landed.skipped)
    return _report(difference, theirs, skipped)


async def _pick(
    remote: Remote,
    source: bytes,
    paths: list[bytes],
    facts: Mapping[bytes, Fact],
    landing: Landing,
    progress: TreeProgress | None,
) -> None:
    """Have these files and links sent."""
    if not paths:
        return
    wishes = Plan()
    wishes.add_many((b"t",), (b"./" + path for path in paths))
    total = sum(facts[path].size_bytes for path in paths)
    moved = counting(progress, total)
    await receive(lambda take: remote.picked(source, bytes(wishes), take), landing, moved)


def _local(target: Path, exclude: Exclude) -> tuple[bool, Found]:
    """Tell whether the folder is there, and what it has."""
    is_there = target.is_dir()
    return is_there, scan(os.fsencode(target), exclude) if is_there else Found()


def compare(
    source: Mapping[bytes, Fact],
    destination: Mapping[bytes, Fact],
    same: SameContent,
    *,
    checksum: bool,
    delete: bool,
) -> Difference:
    """Tell what makes `destination` equal to `source`.

    A file is unchanged when size, mode and time are equal, or with `checksum` size, mode and
    digest; a link, when it points to the same.
    """
    found = Difference()
    for path in sorted(source):
        fact, there = source[path], destination.get(path)
        if there is not None and there.kind != fact.kind and "d" in (fact.kind, there.kind):
            found.doomed.append(path)
            there = None
        if fact.kind == "d":
            if there is None:
                found.make.append(path)
            elif (there.mode & 0o777, there.mtime_s) != (fact.mode & 0o777, fact.mtime_s):
                found.dress.add(path)
        elif there is None or not _is_same(fact, there, path, same, checksum):
            found.send.append(path)
        else:
            found.unchanged += 1
    if delete:
        found.doomed += [path for path in sorted(destination) if path not in source]
    found.doomed = _outermost(found.doomed)
    for path in (*found.send, *found.make, *found.doomed):  # its folder gets another time
        folder = path.rpartition(b"/")[0]
        if path and folder in source:
            found.dress.add(folder)
    return found


def _is_same(fact: Fact, there: Fact, path: bytes, same: SameContent, checksum: bool) -> bool:
    if fact.kind != there.kind:
        return False
    if fact.kind == "l":
        return same(path)
    if (fact.size_bytes, fact.mode & 0o777) != (there.size_bytes, there.mode & 0o777):
        return False
    return same(path) if checksum else fact.mtime_s == there.mtime_s


def _outermost(paths: list[bytes]) -> list[bytes]:
    """Leave out what is in another one's folder."""
    found: list[bytes] = []
    for path in sorted(set(paths), key=lambda path: path.split(b"/")):
        if not any(path.startswith(outer + b"/") for outer in found[-1:]):
            found.append(path)
    return found


def _fact(item: Item) -> Fact:
    status = item.status
    return Fact.of(status.st_mode, max(0, int(status.st_mtime)), status.st_size)


async def _their_facts(remote: Remote, target: bytes, exclude: Exclude) -> dict[bytes, Fact]:
    kind = await remote.kind(target)
    if kind == "f":
        raise TransferFailed(20, f"{shown(target)}: not a folder", path=target)
    facts = await remote.facts(target) if kind == "d" else {}
    return {path: fact for path, fact in facts.items() if not _is_excluded(exclude, path)}


def _checked(facts: Mapping[bytes, Fact], policy: Policy) -> dict[bytes, Fact]:
    """Return the guest's list if it may become a tree here. Raises HostileTree, OutputTooLarge."""
    if len(facts) > policy.max_files:
        text = f"the guest's tree has more than {policy.max_files} entries"
        raise OutputTooLarge(text, hint="raise --max-files")
    clean = {checked_path(path): fact for path, fact in facts.items()}
    return {path: fact for path, fact in clean.items() if not _is_excluded(policy.exclude, path)}


def _is_excluded(exclude: Exclude, path: bytes) -> bool:
    parts = path.split(b"/")
    return bool(path) and any(exclude(b"/".join(parts[:end])) for end in range(1, len(parts) + 1))


async def _same_in_guest(
    remote: Remote,
    root: bytes,
    folder: bytes,
    ours: Mapping[bytes, Fact],
    theirs: Mapping[bytes, Fact],
    checksum: bool,
) -> SameContent:
    """Ask the guest where its links point, and for digests; return what compares them with ours."""
    both = [
        path for path, fact in ours.items() if path in theirs and theirs[path].kind == fact.kind
    ]
    links: dict[bytes, bytes] = {}
    sums: dict[bytes, bytes] = {}
    if any(ours[path].kind == "l" for path in both):
        links = _targets(await remote.links(folder))
    if checksum and any(ours[path].kind == "f" for path in both):
        sums = await remote.sums(folder)

    def same(path: bytes) -> bool:
        local = os.path.join(root, path)
        if ours[path].kind == "l":
            return links.get(path) == os.readlink(local)
        return sums.get(path) == _sha256(local)

    return same


def _targets(stream: bytes) -> dict[bytes, bytes]:
    reader = TarReader()
    entries = [event for event in reader.feed(stream) if isinstance(event, Entry)]
    return {
        checked_path(entry.path): entry.target for entry in entries if entry.kind is Kind.SYMLINK
    }


def _sha256(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _join_hardlinks(difference: Difference, found: Found) -> None:
    """Send all names of a file when one of them is sent: so they are one file there, too."""
    chosen = set(difference.send)
    keys = {
        (item.status.st_dev, item.status.st_ino)
        for item in found.items
        if item.path in chosen and item.is_file and item.status.st_nlink > 1
    }
    if not keys:
        return
    for item in found.items:
        key = item.status.st_dev, item.status.st_ino
        if item.is_file and key in keys and item.path not in chosen:
            difference.send.append(item.path)
            difference.dress.add(item.path.rpartition(b"/")[0])
            difference.unchanged -= 1


def _plan(difference: Difference, items: Mapping[bytes, Item], looks: Looks) -> Plan:
    """Write what the guest does when all has come."""
    plan = Plan()
    plan.add(b"into")
    plan.add_many((b"rm", b"-rf", b"--"), (b"./" + path for path in difference.doomed))
    plan.add_many((b"mkdir", b"-p", b"--"), (b"./" + path for path in difference.make))
    by_folder: dict[bytes, list[bytes]] = {}
    for path in difference.send:
        folder, _, name = path.rpartition(b"/")
        by_folder.setdefault(folder or b".", []).append(name)
    for folder, names in by_folder.items():
        plan.add_many((b"bring", folder), names)
    for path in sorted({*difference.make, *difference.dress}, key=lambda path: -path.count(b"/")):
        status = items[path].status
        where = b"./" + path
        if looks.owners:
            plan.add(b"chown", b"%d:%d" % looks.owner(status), where)
        plan.add(b"look", b"%o" % looks.mode(status), max(0, int(status.st_mtime)), where)
    return plan


def _folder_entry(path: bytes, fact: Fact) -> Entry:
    return Entry(Kind.FOLDER, path, fact.mode, fact.mtime_s)


def _report(
    difference: Difference, facts: Mapping[bytes, Fact], skipped: tuple[str, ...]
) -> TreeReport:
    files = [facts[path] for path in difference.send if facts[path].kind == "f"]
    return TreeReport(
        files=len(files),
        folders=len(difference.make),
        links=len(difference.send) - len(files),
        size_bytes=sum(fact.size_bytes for fact in files),
        skipped=skipped,
        unchanged=difference.unchanged,
        changes=difference.changes(),
    )
