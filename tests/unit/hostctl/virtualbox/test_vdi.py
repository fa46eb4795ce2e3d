import struct
from pathlib import Path

import pytest

from hostctl.backends.virtualbox import vdi

MIB = 1 << 20


def header(path: Path) -> tuple[int, int, int, int]:
    """Return the disk's size, its blocks, how many are in the file, and where data begins."""
    data = path.read_bytes()
    assert data[vdi.SIGNATURE_AT :].startswith(vdi.SIGNATURE)
    size, _, _, blocks, used = struct.unpack_from("<QIIII", data, 0x170)
    return size, blocks, used, struct.unpack_from("<I", data, 0x158)[0]


def read(path: Path) -> bytes:
    """Read a disk as VirtualBox would."""
    data = path.read_bytes()
    size, blocks, _, start = header(path)
    table = struct.unpack_from(f"<{blocks}I", data, struct.unpack_from("<I", data, 0x154)[0])
    at = [start + MIB * index for index in table if index != 0xFFFFFFFF]
    found = iter([data[begin : begin + MIB] for begin in at])
    whole = b"".join(bytes(MIB) if index == 0xFFFFFFFF else next(found) for index in table)
    return whole[:size]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"x" * (MIB + 1),
        bytes(3 * MIB) + b"end",
        b"begin".ljust(5 * MIB, b"\0"),
        bytes(MIB) + b"y" * MIB + bytes(MIB),
    ],
    ids=["empty", "byte", "odd end", "hole first", "hole last", "holes around"],
)
def test_what_is_written_is_what_is_read(tmp_path: Path, content: bytes) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk.vdi"
    raw.write_bytes(content)
    with raw.open("rb") as source:
        vdi.write(disk, 8 * MIB, source)
    assert read(disk) == content.ljust(8 * MIB, b"\0")


def test_zeroes_and_holes_take_no_room(tmp_path: Path) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk.vdi"
    with raw.open("wb") as file:
        file.write(bytes(2 * MIB))
        file.seek(100 * MIB)
        file.write(b"z")
    with raw.open("rb") as source:
        vdi.write(disk, 101 * MIB, source)
    assert header(disk)[:3] == (101 * MIB, 101, 1)
    assert disk.stat().st_size == 3 * MIB
    assert read(disk)[100 * MIB :][:1] == b"z"


def test_an_empty_disk_is_a_header(tmp_path: Path) -> None:
    disk = tmp_path / "disk.vdi"
    vdi.write(disk, 1 << 40)
    assert header(disk)[:3] == (1 << 40, 1 << 20, 0)
    assert disk.stat().st_size == 5 * MIB  # the map of a tebibyte


def test_sizes_are_whole_sectors(tmp_path: Path) -> None:
    disk = tmp_path / "disk.vdi"
    vdi.write(disk, 1000)
    assert header(disk)[0] == 1024


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    disk = tmp_path / "disk.vdi"
    disk.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        vdi.write(disk, MIB)
    assert disk.read_bytes() == b"precious"
