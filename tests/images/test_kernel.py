"""Kernels taken out of their wrapping, modules put in order; on files made here."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from hostctl_images.errors import BuildFailed
from hostctl_images.kernel import PVH_NOTE, SIGNATURE_MAGIC, load_order, read_module, unpack_kernel
from hostctl_images.lz4 import MAGIC

PVH_KERNEL = b"\x7fELF" + b"code" + PVH_NOTE + b"more code"


def bzimage(payload: bytes) -> bytes:
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + b"\0" * 16 + payload


def lz4_literals(data: bytes) -> bytes:
    rest = len(data) - 15
    block = b"\xf0" + b"\xff" * (rest // 255) + bytes((rest % 255,)) + data
    return MAGIC + len(block).to_bytes(4, "little") + block


def module(folder: Path, name: str, needs: str = "", signed: bool = False) -> Path:
    path = folder / name
    data = b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"
    if signed:
        data += b"signature" + b"\0" * 8 + (9).to_bytes(4, "big") + SIGNATURE_MAGIC
    path.write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    return path


def test_lz4_kernel_is_unpacked() -> None:
    assert unpack_kernel(bzimage(lz4_literals(PVH_KERNEL) + b"size")) == PVH_KERNEL


def test_gzip_kernel_is_unpacked() -> None:
    assert unpack_kernel(bzimage(gzip.compress(PVH_KERNEL) + b"size")) == PVH_KERNEL


def test_kernel_without_pvh_note_stays_packed() -> None:
    image = bzimage(gzip.compress(b"\x7fELF old kernel") + b"size")
    assert unpack_kernel(image) == image


def test_unknown_packing_stays_packed() -> None:
    image = bzimage(b"\x28\xb5\x2f\xfd zstd")
    assert unpack_kernel(image) == image


def test_what_is_no_bzimage_stays_as_it_is() -> None:
    assert unpack_kernel(PVH_KERNEL) == PVH_KERNEL


def test_damaged_payload_is_an_error() -> None:
    with pytest.raises(BuildFailed, match="damaged"):
        unpack_kernel(bzimage(MAGIC + b"\x01\0\0\0\xf0"))


def test_each_module_comes_after_what_it_needs(tmp_path: Path) -> None:
    module(tmp_path, "virtio_pci.ko", "virtio,virtio_pci_modern_dev")
    module(tmp_path, "virtio.ko", "virtio_ring")
    module(tmp_path, "virtio_ring.ko")
    module(tmp_path, "virtio_pci_modern_dev.ko")
    module(tmp_path, "unwanted.ko")
    names = [each.name for each in load_order(tmp_path, ["virtio_pci"])]
    assert names == ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci"]


def test_module_that_no_file_has_is_built_in(tmp_path: Path) -> None:
    module(tmp_path, "a.ko", "built_in")
    assert [each.name for each in load_order(tmp_path, ["a", "also_built_in"])] == ["a"]


def test_dash_and_underscore_are_one_name(tmp_path: Path) -> None:
    module(tmp_path, "virtio-rng.ko.xz", "rng-core")
    module(tmp_path, "rng_core.ko")
    assert [each.name for each in load_order(tmp_path, ["virtio_rng"])] == [
        "rng_core",
        "virtio_rng",
    ]


def test_modules_in_a_circle_are_an_error(tmp_path: Path) -> None:
    module(tmp_path, "a.ko", "b")
    module(tmp_path, "b.ko", "a")
    with pytest.raises(BuildFailed, match="circle: a b a"):
        load_order(tmp_path, ["a"])


def test_signature_is_cut_off(tmp_path: Path) -> None:
    plain = read_module(module(tmp_path, "a.ko", "b"))
    assert read_module(module(tmp_path, "a.ko", "b", signed=True)).data == plain.data
