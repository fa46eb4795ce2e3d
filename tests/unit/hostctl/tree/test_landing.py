"""Hostile archives: whatever a guest sends, nothing outside the named folder is touched.

Archives are made by Python's own tarfile, which checks nothing when it writes.
"""

import io
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from hostctl.errors import HostileTree, OutputTooLarge
from hostctl.tree.exclude import Exclude
from hostctl.tree.landing import Landing, Policy
from hostctl.tree.tarstream import Entry, Kind, TarReader


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def folder(name: str) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, mode=0o755)


def archive(members: Iterable[tarfile.TarInfo], kind: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for info in members:
            body = b"EVIL" if info.isreg() and not info.size else b"x" * info.size
            info.size = len(body) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def land(data: bytes, target: Path, policy: Policy | None = None, step: int = 1000) -> Landing:
    reader = TarReader()
    with Landing(target, policy or Policy()) as landing:
        for at in range(0, len(data), step):
            for event in reader.feed(data[at : at + step]):
                landing.take(event)
        reader.close()
        landing.commit()
    return landing


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Return a folder with something precious in it, beside which a tree shall land."""
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret").write_bytes(b"mine")
    return tmp_path


def state(world: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(world)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in world.rglob("*")
    }


HOSTILE = {
    "absolute path": [member("/tmp/evil")],
    "parent": [member("../precious")],
    "parent inside": [folder("a"), member("a/../../precious")],
    "parent in the middle, harmless": [member("a/../b")],
    "parent of a folder": [folder("../home")],
    "absolute folder": [folder("/tmp/evil")],
    "absolute symlink": [link("out", "/etc")],
    "symlink up": [link("out", "..")],
    "symlink up by a folder": [folder("a"), link("a/out", "../../home")],
    "write through a symlink": [link("out", "../home"), member("out/secret")],
    "write through a link to here": [link("here", "."), member("here/file")],
    "file over a symlink": [link("x", "y"), member("x")],
    "folder over a symlink": [folder("d"), link("x", "d"), folder("x"), member("x/f")],
    "symlink over a folder": [folder("x"), link("x", "d")],
    "symlink over a file": [member("x"), link("x", "y")],
    "file twice": [member("x"), member("x")],
    "file over a folder": [folder("x"), member("x")],
    "through a file": [member("x"), member("x/y")],
    "climbing behind a link": [
        folder("a"),
        folder("a/b"),
        link("a/b/top", "../.."),
        link("out", "a/b/top/../home"),
    ],
    "long chain of links": [
        folder("d"),
        link("a", "d"),
        link("b", "a/../.."),
        member("b/precious"),
    ],
    "empty link": [link("x", "")],
    "hard link out": [hardlink("x", "../precious")],
    "absolute hard link": [hardlink("x", "/etc/passwd")],
    "hard link to nothing": [hardlink("x", "none")],
    "hard link into nothing": [hardlink("x", "none/y")],
    "hard link to the root": [hardlink("x", ".")],
    "hard link to itself": [hardlink("x", "x")],
    "hard link to a symlink": [link("l", "f"), hardlink("x", "l")],
    "hard link to a folder": [folder("d"), hardlink("x", "d")],
    "hard link through a symlink": [
        folder("d"),
        member("d/f"),
        link("l", "d"),
        hardlink("x", "l/f"),
    ],
    "hard link over a file": [member("a"), member("b"), hardlink("a", "b")],
    "character device": [member("x", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("x", tarfile.BLKTYPE, devmajor=8)],
    "FIFO": [member("x", tarfile.FIFOTYPE)],
    "unknown type": [member("x", b"Q")],
    "too long a name": [member("n" * 256)],
    "too long a path": [member("a/" * 2100 + "x")],
    "too deep": [member("a/" * 201 + "x")],
    "the root is a file": [member(".")],
    "the root is a link": [link(".", "..")],
    "a slash at its end": [member("x/", b"Q")],
}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_changes_nothing(name: str, kind: int, world: Path) -> None:
    before = state(world)
    with pytest.raises(HostileTree):
        land(archive(HOSTILE[name], kind), world / "target")
    assert state(world) == before


def test_setuid_and_friends_are_dropped_unless_asked_for(world: Path) -> None:
    data = archive([member("x", mode=0o6755), folder("."), folder("d")])
    land(data, world / "target")
    assert stat.S_IMODE((world / "target" / "x").stat().st_mode) == 0o755
    land(data, world / "asked", Policy(special_bits=True))
    assert stat.S_IMODE((world / "asked" / "x").stat().st_mode) == 0o6755


def test_the_owner_can_always_enter_and_remove(world: Path) -> None:
    land(archive([folder("d"), member("d/x", mode=0), member("e", tarfile.DIRTYPE)]), world / "t")
    assert stat.S_IMODE((world / "t" / "d" / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE((world / "t" / "e").stat().st_mode) & 0o700 == 0o700


@pytest.mark.parametrize(
    ("policy", "members"),
    [
        (Policy(max_bytes=10), [member("a", size=6), member("b", size=6)]),
        (Policy(max_files=2), [member("a"), member("b"), member("c")]),
        (Policy(max_files=2), [folder("a"), folder("a/b"), folder("a/b/c")]),
        (Policy(max_files=1), [member("a"), hardlink("b", "a")]),
        (Policy(max_files=9), [member("a/" * 9 + "x")]),
    ],
)
def test_a_quota_holds(policy: Policy, members: list[tarfile.TarInfo], world: Path) -> None:
    before = state(world)
    with pytest.raises(OutputTooLarge) as caught:
        land(archive(members), world / "target", policy)
    assert (caught.value.hint or "").startswith("raise --max-")
    assert state(world) == before


def test_a_claimed_size_counts_before_a_byte_has_come(world: Path) -> None:
    huge = member("x")
    huge.size = 1 << 50
    with pytest.raises(OutputTooLarge):
        land(huge.tobuf(tarfile.GNU_FORMAT), world / "target")


def test_a_sparse_file_counts_with_its_holes(world: Path) -> None:
    with Landing(world / "t", Policy(max_bytes=1 << 20)) as landing, pytest.raises(OutputTooLarge):
        landing.take(Entry(Kind.FILE, b"x", 0o644, 0, 1 << 40))


def test_links_that_lead_out_can_be_left_out(world: Path) -> None:
    data = archive([folder("d"), link("d/out", "/etc"), link("d/in", "x"), member("d/x")])
    landing = land(data, world / "target", Policy(links="skip"))
    assert landing.landed.skipped == ["d/out"]
    assert sorted(os.listdir(world / "target" / "d")) == ["in", "x"]


@pytest.mark.parametrize(
    ("place", "target"),
    [("a", "b"), ("d/a", "../b"), ("d/e/a", "../../d/./e"), ("d/a", "../d/e/f/g"), ("a", "./x//y")],
)
def test_links_that_stay_inside_are_kept_word_for_word(
    place: str, target: str, world: Path
) -> None:
    land(archive([link(place, target)]), world / "target")
    assert os.readlink(world / "target" / place) == target


def test_what_is_cut_leaves_nothing(world: Path) -> None:
    before = state(world)
    whole = archive([folder("a"), member("a/b", size=3000), member("c")])
    for size in (0, 100, 512, 1024, 2000, 5000):
        with pytest.raises(HostileTree, match="ended too early"):
            land(whole[:size], world / "target")
    assert state(world) == before


def test_what_came_is_kept_aside_on_request(world: Path) -> None:
    whole = archive([folder("a"), member("a/b", size=100), member("c", size=3000)])
    for number in range(2):
        with Landing(world / "target", Policy(), partial=True) as landing:
            for event in TarReader().feed(whole[:3000]):
                landing.take(event)
        found = sorted(world.glob("target.partial*"))
        assert len(found) == number + 1
        assert (found[0] / "a" / "b").read_bytes() == b"x" * 100
    assert not (world / "target").exists()


def test_an_old_tree_is_replaced_by_one_rename_or_stays(world: Path) -> None:
    with Landing(world / "home", Policy()) as landing:
        for event in TarReader().feed(archive([member("new")])):
            landing.take(event)
        with pytest.raises(FileExistsError):
            landing.commit()
        assert os.listdir(world / "home") == ["secret"]
        landing.commit(replace=True)
    assert os.listdir(world / "home") == ["new"]
    assert sorted(os.listdir(world)) == ["home", "precious"]


def test_a_merge_follows_no_link_of_the_target(world: Path) -> None:
    """Of a tree in which an earlier guest left a link, the link goes, not what it names."""
    (world / "target").mkdir()
    (world / "target" / "d").symlink_to("../home")
    (world / "target" / "f").symlink_to("../precious")
    only = frozenset({b"d/secret", b"f"})
    with Landing(world / "target", Policy(), inside=True, only=only) as landing:
        for event in TarReader().feed(archive([member("d/secret"), member("f")])):
            landing.take(event)
        landing.merge([(b"d", Entry(Kind.FOLDER, b"d", 0o755, 0))], [])
    assert (world / "home" / "secret").read_bytes() == b"mine"
    assert (world / "precious").read_bytes() == b"mine"
    assert (world / "target" / "d" / "secret").read_bytes() == b"EVIL"
    assert (world / "target" / "f").read_bytes() == b"EVIL"


def test_doomed_things_are_removed_through_no_link(world: Path) -> None:
    (world / "target" / "d").mkdir(parents=True)
    (world / "target" / "out").symlink_to("../home")
    with Landing(world / "target", Policy(), inside=True) as landing:
        with pytest.raises(HostileTree):
            landing.merge([], [b"out/secret"])
        landing.merge([], [b"out", b"d", b"none"])
    assert os.listdir(world / "target") == []
    assert (world / "home" / "secret").read_bytes() == b"mine"


def test_what_was_not_asked_for_is_refused(world: Path) -> None:
    with (
        Landing(world / "t", Policy(), only=frozenset({b"a"})) as landing,
        pytest.raises(HostileTree, match="was not asked for"),
    ):
        landing.take(Entry(Kind.FILE, b"b", 0o644, 0))


def test_a_stage_whose_process_is_gone_is_swept(world: Path) -> None:
    stale = world / ".hostctl-tree.stale"
    stale.mkdir()
    with Landing(world / "other", Policy()) as living:
        stage = living._stage
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hostctl.tree.landing._NEWBORN_S", -1.0)
            land(archive([member("x")]), world / "target")
        assert not stale.exists()
        assert stage.exists()


def test_excluded_things_are_left_out(world: Path) -> None:
    data = archive([folder("d"), member("d/x.o"), member("d/y"), folder("tmp"), member("tmp/z")])
    land(data, world / "target", Policy(exclude=Exclude(["*.o", "tmp"])))
    assert sorted(str(p.relative_to(world / "target")) for p in world.glob("target/**/*")) == [
        "d",
        "d/y",
    ]
