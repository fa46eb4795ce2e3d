"""A program and its libraries, out of packages that stand for the distribution's."""

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from hostctl_images.closure import gather
from hostctl_images.errors import BuildFailed
from hostctl_images.packages import Package, _package

pytestmark = pytest.mark.needs("dpkg-deb")

LOADER = "/lib64/ld-linux-x86-64.so.2"


def elf(needs: Sequence[str], interpreter: str = "") -> bytes:
    """Make the headers of a 64-bit ELF file, and no code."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needs)
    offsets, at = [], 1
    for name in needs:
        offsets.append(at)
        at += len(name) + 1
    word = interpreter.encode() + b"\0"
    kinds = [1, 2] + ([3] if interpreter else [])
    base = 64 + 56 * len(kinds)
    dynamic = base + len(strings) + len(word)
    tags = [(5, 0x1000 + base), *((1, offset) for offset in offsets), (0, 0)]
    heads = {
        1: (0, 0x1000, dynamic + 16 * len(tags)),
        2: (dynamic, 0x1000 + dynamic, 16 * len(tags)),
        3: (base + len(strings), 0x1000 + base + len(strings), len(word)),
    }
    data = b"\x7fELF\x02\x01" + bytes(58)
    data = data[:0x20] + struct.pack("<Q", 64) + data[0x28:0x36]
    data = (data + struct.pack("<HH", 56, len(kinds))).ljust(64, b"\0")
    for kind in kinds:
        offset, address, size = heads[kind]
        data += struct.pack("<IIQQQQQQ", kind, 0, offset, address, address, size, size, 1)
    return data + strings + word + b"".join(struct.pack("<qQ", *tag) for tag in tags)


class Shop:
    """Where packages are made and had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.had: list[str] = []

    def make(self, name: str, files: dict[str, bytes], depends: str = "") -> None:
        root = self.folder / name
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        (root / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
        )
        control += f"Depends: {depends}\n" if depends else ""
        (root / "DEBIAN/control").write_text(control)
        made = self.folder / f"{name}_1_amd64.deb"
        words = ["dpkg-deb", "-Znone", "--root-owner-group", "-b", str(root), str(made)]
        subprocess.run(words, check=True, capture_output=True, timeout=30)

    def fetch(self, name: str) -> Package:
        self.had.append(name)
        return _package(self.folder / f"{name}_1_amd64.deb")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.make("libc6", {LOADER.lstrip("/"): elf([]), "lib/x/libc.so.6": elf(["libdeep.so.1"])})
    shop.make("libdeep1", {"usr/lib/x/libdeep.so.1": elf([])})
    shop.make("unused", {"usr/lib/libunused.so": b""})
    program = {"usr/sbin/agent": elf(["libc.so.6"], LOADER)}
    shop.make("agent", program, "libc6 (>= 2.36) | other, libdeep1, unused")
    return shop


def test_only_what_is_needed_is_taken(shop: Shop, tmp_path: Path) -> None:
    found = gather(shop.fetch("agent"), "usr/sbin/agent", tmp_path / "root", shop.fetch)
    assert set(found.files) == {
        "usr/sbin/agent",
        "lib64/ld-linux-x86-64.so.2",
        "lib/libc.so.6",
        "lib/libdeep.so.1",
    }
    assert shop.had == ["agent", "libc6", "libdeep1"]
    assert [package.name for package in found.packages] == shop.had


def test_a_link_leads_below_the_folder(shop: Shop, tmp_path: Path) -> None:
    loader = tmp_path / "libc6" / LOADER.lstrip("/")
    loader.rename(loader.with_name("real"))
    loader.symlink_to("/lib64/real")
    words = [
        "dpkg-deb",
        "-Znone",
        "-b",
        str(tmp_path / "libc6"),
        str(tmp_path / "libc6_1_amd64.deb"),
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    found = gather(shop.fetch("agent"), "usr/sbin/agent", tmp_path / "root", shop.fetch)
    assert found.files["lib64/ld-linux-x86-64.so.2"] == elf([])


def test_a_library_that_is_nowhere_is_told(shop: Shop, tmp_path: Path) -> None:
    shop.make("lost", {"usr/sbin/lost": elf(["libnone.so.1"], LOADER)}, "libc6")
    with pytest.raises(BuildFailed, match="which usr/sbin/lost needs, is in no package"):
        gather(shop.fetch("lost"), "usr/sbin/lost", tmp_path / "root", shop.fetch)


def test_what_is_no_program_is_told(shop: Shop, tmp_path: Path) -> None:
    shop.make("text", {"usr/sbin/text": b"#!/bin/sh\n"})
    with pytest.raises(BuildFailed, match="no ELF file"):
        gather(shop.fetch("text"), "usr/sbin/text", tmp_path / "root", shop.fetch)
