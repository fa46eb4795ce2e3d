"""Whole folders through the real agent under four shells: with GNU tar, with busybox's, without."""

import io
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.tree import (
    Exclude,
    Looks,
    Moved,
    Policy,
    Remote,
    get_tree,
    packing,
    put_tree,
    sync_from,
    sync_to,
)
from hostctl.tree.packing import Archive, Packing, scan
from hostctl_channels.errors import Refused, TransferFailed
from hostctl_channels.interface import Channel
from tests.trees import HOLE, everything, looks
from tests.twin import PtyTwin

NONE = Exclude()
PLAIN = Looks()


@pytest.fixture
async def bare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Channel]:
    """Return a guest whose tools are the fewest: no tar, no find, no stat."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("dash", "busybox"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    (tools / "sh").symlink_to(tools / "dash")
    for name in ("dd", "mkdir", "mv", "rm", "ln", "chmod", "touch", "cat", "readlink", "setsid"):
        (tools / name).symlink_to(tools / "busybox")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tools))
        twin = PtyTwin("dash", folder)
    await twin.channel.connect(30)
    yield twin.channel
    await twin.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder of this host with everything in it."""
    return everything(tmp_path / "source")


def target_of(folder: Path, name: str = "target") -> tuple[Path, bytes]:
    """Return a path of the guest, which is this host, in both ways."""
    return folder / name, os.fsencode(folder / name)


def leftovers(folder: Path) -> list[str]:
    """Return stages that were not removed."""
    return [path.name for path in folder.rglob(".hostctl*")]


async def test_a_tree_is_put_with_all_that_it_has(
    channel: Channel, source: Path, folder: Path
) -> None:
    target, path = target_of(folder)
    moved: list[Moved] = []
    report = await put_tree(channel, source, path, exclude=NONE, looks=PLAIN, progress=moved.append)
    assert looks(target) == looks(source)
    assert (target / "sub" / "holes").stat().st_blocks * 512 < HOLE
    assert (report.files, report.folders, report.links) == (11, 4, 2)
    assert moved[-1].size_bytes < HOLE
    assert leftovers(folder) == []


async def test_a_tree_is_got_with_all_that_it_has(
    channel: Channel, source: Path, folder: Path, tmp_path: Path
) -> None:
    inside, path = target_of(folder, "inside")
    shutil.copytree(source, inside, symlinks=True)  # no hard links: another source
    os.link(inside / "plain", inside / "again")
    os.utime(inside, (1e9, 1e9))
    target = tmp_path / "target"
    report = await get_tree(channel, path, target, policy=Policy())
    assert looks(target) == looks(inside)
    assert (target / "sub" / "holes").stat().st_blocks * 512 < HOLE
    assert (report.files, report.folders, report.links) == (12, 4, 2)
    assert leftovers(tmp_path) == []


async def test_what_is_there_is_replaced_only_on_request(
    channel: Channel, source: Path, folder: Path
) -> None:
    target, path = target_of(folder)
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(TransferFailed, match="is there already") as caught:
        await put_tree(channel, source, path, exclude=NONE, looks=PLAIN)
    assert caught.value.errno == 17
    assert [each.name for each in target.iterdir()] == ["old"]
    await put_tree(channel, source, path, exclude=NONE, looks=PLAIN, replace=True)
    assert looks(target) == looks(source)
    assert leftovers(folder) == []


async def test_a_missing_folder_is_not_invented(channel: Channel, source: Path) -> None:
    with pytest.raises(TransferFailed, match="no such folder") as caught:
        await put_tree(channel, source, b"/no/such/folder", exclude=NONE, looks=PLAIN)
    assert caught.value.errno == 2
    with pytest.raises(TransferFailed, match="no such folder"):
        await get_tree(channel, b"/no/such/folder", source.parent / "x", policy=Policy())


async def test_exclude_means_the_same_on_both_sides(
    channel: Channel, source: Path, folder: Path, tmp_path: Path
) -> None:
    target, path = target_of(folder)
    exclude = Exclude(["hole*", "/plain", "deeper/f*", "void"])
    await put_tree(channel, source, path, exclude=exclude, looks=PLAIN)
    expected = {
        name
        for name in looks(source)
        if name not in ("plain", "sub/holes", "holes too", "sub/deeper/file")
        and not name.startswith("sub/void")
    }
    assert set(looks(target)) == expected
    inside, path = target_of(folder, "inside")
    shutil.copytree(source, inside, symlinks=True)
    await get_tree(channel, path, tmp_path / "got", policy=Policy(exclude=exclude))
    assert set(looks(tmp_path / "got")) == expected


async def test_sync_moves_only_what_changed(
    channel: Channel, source: Path, folder: Path, tmp_path: Path
) -> None:
    (source / "odd 'name'\n$x\\").unlink()
    os.utime(source, (1e9, 1e9))
    target, path = target_of(folder)
    report = await sync_to(channel, source, path, exclude=NONE, looks=PLAIN)
    assert looks(target) == looks(source)
    report = await sync_to(channel, source, path, exclude=NONE, looks=PLAIN)
    assert (report.changes, report.files, report.unchanged) == ((), 0, 12)

    (source / "plain").write_bytes(b"HELLO\n")
    (source / "sub" / "up").unlink()
    (source / "sub" / "up").symlink_to("deeper")
    shutil.rmtree(source / "sub" / "void")
    (source / "sub" / "void").write_bytes(b"a file now")
    (source / "empty").unlink()
    (source / "empty").mkdir()
    (target / "extra" / "more").mkdir(parents=True)
    report = await sync_to(channel, source, path, exclude=NONE, looks=PLAIN)
    assert "extra" in looks(target)
    assert ("send", "plain") in report.changes
    assert ("send", "sub/same") in report.changes  # the same file
    assert ("send", "sub/holes") not in report.changes
    await sync_to(channel, source, path, exclude=NONE, looks=PLAIN, delete=True)
    assert looks(target) == looks(source)
    assert leftovers(folder) == []


async def test_sync_from_a_guest(
    channel: Channel, source: Path, folder: Path, tmp_path: Path
) -> None:
    (source / "odd 'name'\n$x\\").unlink()
    inside, path = target_of(folder, "inside")
    shutil.copytree(source, inside, symlinks=True)
    target = tmp_path / "got"
    await sync_from(channel, path, target, policy=Policy())
    assert looks(target) == looks(inside)
    (inside / "plain").write_bytes(b"HELLO\n")
    (inside / "sub" / "deeper" / "file").unlink()
    (inside / "sub" / "up").unlink()
    (inside / "sub" / "up").mkdir()
    (target / "mine").write_bytes(b"stays")
    told = await sync_from(channel, path, target, policy=Policy(), delete=True, dry_run=True)
    assert (target / "mine").exists()
    done = await sync_from(channel, path, target, policy=Policy(), delete=True)
    assert told.changes == done.changes
    assert ("remove", "mine") in done.changes
    assert looks(target) == looks(inside)
    assert leftovers(tmp_path) == []


async def test_checksum_sees_what_size_and_time_hide(
    channel: Channel, source: Path, folder: Path
) -> None:
    (source / "odd 'name'\n$x\\").unlink()
    target, path = target_of(folder)
    await sync_to(channel, source, path, exclude=NONE, looks=PLAIN)
    status = (target / "program").stat()
    (target / "program").write_bytes(b"#!/bin/ds\n")
    os.utime(target / "program", (status.st_atime, status.st_mtime))
    await sync_to(channel, source, path, exclude=NONE, looks=PLAIN)
    assert looks(target) != looks(source)
    report = await sync_to(channel, source, path, exclude=NONE, looks=PLAIN, checksum=True)
    assert report.changes == (("send", "program"),)
    assert looks(target) == looks(source)


@pytest.mark.needs("busybox", "dash")
async def test_a_guest_without_tar_is_served_file_by_file(
    bare: Channel, source: Path, folder: Path, tmp_path: Path
) -> None:
    target, path = target_of(folder)
    await put_tree(bare, source, path, exclude=NONE, looks=PLAIN)
    assert looks(target) == looks(source)
    await get_tree(bare, path, tmp_path / "got", policy=Policy())
    got = looks(tmp_path / "got")
    assert {key: value[0] for key, value in got.items()} == {
        key: value[0] for key, value in looks(source).items()
    }
    assert (tmp_path / "got" / "sub" / "holes").read_bytes() == (
        source / "sub" / "holes"
    ).read_bytes()
    assert leftovers(folder) == []
    with pytest.raises(Refused, match="no find"):
        await sync_to(bare, source, path, exclude=NONE, looks=PLAIN)


async def test_a_stream_that_ends_early_leaves_the_old_state(
    folder: Path, channel: Channel
) -> None:
    target, path = target_of(folder)
    target.mkdir()
    (target / "old").touch()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("tree/new"))
    for data in (b"x" * 512, whole.getvalue()):  # no archive; and one without its plan
        with pytest.raises(TransferFailed):
            await Remote(channel).land(path, (Archive(data, 0),), how="replace")
    assert [each.name for each in target.iterdir()] == ["old"]
    assert leftovers(folder) == []
    archive = Archive(whole.getvalue(), 0)
    with pytest.raises(TransferFailed, match="did not come whole"):
        await Remote(channel).land(path, (archive,), how="replace", partial=True)
    assert [each.name for each in folder.joinpath("target.partial").iterdir()] == ["new"]


async def test_a_glob_is_expanded_in_the_guest(channel: Channel, folder: Path) -> None:
    for name in ("a 1.log", "b'2.log", "c.txt", "[x].log", "n\nl.log"):
        (folder / name).touch()
    found = await Remote(channel).glob(os.fsencode(folder) + b"/*.log")
    assert {os.path.basename(path) for path in found} == {
        b"a 1.log",
        b"b'2.log",
        b"[x].log",
        b"n\nl.log",
    }
    assert await Remote(channel).glob(os.fsencode(folder) + b"/*.none") == ()
    literal = os.fsencode(folder) + b"/[x].log"
    assert await Remote(channel).glob(literal) == (literal,)


async def test_what_a_killed_one_left_is_swept(
    channel: Channel, source: Path, folder: Path
) -> None:
    stale, fresh = folder / ".hostctl-tree.xstale", folder / ".hostctl-tree.xfresh"
    for path in (stale, fresh):
        (path / "tree").mkdir(parents=True)
    os.utime(stale, (1e9, 1e9))
    _, target = target_of(folder)
    await put_tree(channel, source, target, exclude=NONE, looks=PLAIN)
    assert leftovers(folder) == [fresh.name]


async def test_a_tree_may_be_larger_than_an_archive(
    channel: Channel, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ARCHIVE", 16 * 1024)
    target, path = target_of(folder)
    moved: list[Moved] = []
    await put_tree(channel, source, path, exclude=NONE, looks=PLAIN, progress=moved.append)
    assert looks(target) == looks(source)
    assert len(moved) > 4
    assert leftovers(folder) == []


async def test_a_source_that_fails_leaves_nothing(
    channel: Channel, source: Path, folder: Path
) -> None:
    def archives() -> Iterator[Archive]:
        yield from list(Packing(os.fsencode(source), scan(os.fsencode(source), NONE).items, PLAIN))
        raise OSError(5, "the disk broke")

    _, path = target_of(folder)
    with pytest.raises(OSError, match="the disk broke"):
        await Remote(channel).land(path, archives())
    assert leftovers(folder) == []
    assert not (folder / "target").exists()


@pytest.mark.usefixtures("root")
async def test_owners_and_special_bits_go_along_on_request(
    channel: Channel, folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x")
    os.truncate(source / "file", 1 << 20)  # one that the plan puts together
    (source / "link").symlink_to("file")
    for each in (source, source / "file", source / "link"):
        os.chown(each, 1234, 2345, follow_symlinks=False)
    (source / "file").chmod(0o6755)
    plain, path = target_of(folder)
    await put_tree(channel, source, path, exclude=NONE, looks=PLAIN)
    assert facts(plain) == [(0, 0, 0o755), (0, 0, 0o777)]
    kept, path = target_of(folder, "kept")
    await put_tree(channel, source, path, exclude=NONE, looks=Looks(owners=True, special_bits=True))
    assert facts(kept) == [(1234, 2345, 0o6755), (1234, 2345, 0o777)]
    await get_tree(channel, path, tmp_path / "plain", policy=Policy())
    assert facts(tmp_path / "plain") == [(0, 0, 0o755), (0, 0, 0o777)]
    await get_tree(channel, path, tmp_path / "kept", policy=Policy(owners=True, special_bits=True))
    assert facts(tmp_path / "kept") == facts(kept)


def facts(folder: Path) -> list[tuple[int, int, int]]:
    """Return owner, group and mode of the file and the link in a folder."""
    found = [(folder / name).lstat() for name in ("file", "link")]
    return [(each.st_uid, each.st_gid, each.st_mode & 0o7777) for each in found]
