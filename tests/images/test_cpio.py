"""The archive writer, read back by busybox and by a reader of our own."""

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl_images import cpio
from hostctl_images.cpio import Entry

OWNER = (os.getuid(), os.getgid())
HEADER = 110


def archive(entries: dict[str, Entry]) -> bytes:
    out = io.BytesIO()
    size = cpio.write(out, entries)
    assert size == len(out.getvalue())
    return out.getvalue()


def read(data: bytes) -> dict[str, Entry]:
    """Read an archive back, strictly."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, check = fields
        assert (mtime, check) == (0, 0)
        name = data[at + HEADER : at + HEADER + name_size]
        assert name.endswith(b"\0")
        start = (at + HEADER + name_size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert not data[start:].strip(b"\0")
            return entries
        path = name[:-1].decode()
        assert path not in entries
        entries[path] = Entry(mode, data[start : start + size], (uid, gid), (major, minor))
        at = (start + size + 3) // 4 * 4


@pytest.mark.needs("busybox")
def test_busybox_unpacks_what_was_written(tmp_path: Path) -> None:
    text = bytes(range(256)) * 300
    entries = {
        "bin": Entry(stat.S_IFDIR | 0o755, owner=OWNER),
        "bin/tool": Entry(stat.S_IFREG | 0o755, text, OWNER),
        "bin/other name": Entry(stat.S_IFREG | 0o600, b"", OWNER),
        "link": Entry(stat.S_IFLNK | 0o777, b"bin/tool", OWNER),
    }
    subprocess.run(
        ["busybox", "cpio", "-i"], input=archive(entries), cwd=tmp_path, check=True, timeout=30
    )
    assert (tmp_path / "bin/tool").read_bytes() == text
    assert stat.S_IMODE((tmp_path / "bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "bin/other name").stat().st_mode) == 0o600
    assert os.readlink(tmp_path / "link") == "bin/tool"


@pytest.mark.needs("busybox")
def test_busybox_lists_nodes_and_owners() -> None:
    entries = {
        "dev/console": cpio.node(5, 1, 0o600),
        "home/user": cpio.directory(0o700, (1000, 1000)),
    }
    done = subprocess.run(
        ["busybox", "cpio", "-tv"], input=archive(entries), capture_output=True, timeout=30
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert any(line.startswith("crw-------") and line.endswith(" dev/console") for line in lines)
    assert any(line.startswith("drwx------") and " 1000/1000 " in line for line in lines)


def test_order_of_entries_does_not_matter() -> None:
    one = {"b": cpio.file(b"1"), "a/c": cpio.file(b"2"), "a": cpio.directory()}
    other = dict(reversed(one.items()))
    assert archive(one) == archive(other)


def test_parents_are_made_before_their_content() -> None:
    assert list(read(archive({"a/b/c": cpio.file(b"")}))) == ["a", "a/b", "a/b/c"]


def test_parents_keep_the_mode_they_were_given() -> None:
    entries = read(archive({"a/b": cpio.file(b""), "a": cpio.directory(0o700)}))
    assert entries["a"].mode == stat.S_IFDIR | 0o700


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "a//b", "a/", "", "TRAILER!!!"])
def test_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        archive({path: cpio.file(b"")})


def test_file_below_a_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no folder"):
        archive({"a": cpio.file(b""), "a/b": cpio.file(b"")})


names = st.text("abc.-_ é", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(names, st.binary(max_size=40), max_size=6))
def test_what_is_written_is_read_back(contents: dict[str, bytes]) -> None:
    entries = {name: cpio.file(data, 0o640) for name, data in contents.items()}
    assert read(archive(entries)) == entries
