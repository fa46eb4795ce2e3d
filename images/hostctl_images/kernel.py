"""A distribution's kernel, made ready to boot fast: the plain ELF file, and modules in order.

QEMU starts an ELF kernel with a PVH note directly; that saves the guest its own unpacking.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import lz4
from .errors import BuildFailed

__all__ = ["Module", "load_order", "unpack_kernel"]

MAX_KERNEL = 512 * 1024 * 1024  # Debian's cloud kernel has 53 MB, its full one 80
ELF = b"\x7fELF"
PVH_NOTE = struct.pack("<I", 18) + b"Xen\0"  # XEN_ELFNOTE_PHYS32_ENTRY: type, then owner
SIGNATURE_MAGIC = b"~Module signature appended~\n"


@dataclass(frozen=True, slots=True)
class Module:
    """One kernel module: its name, what it needs, and its text without signature."""

    name: str
    needs: tuple[str, ...]
    data: bytes


def unpack_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage, or the image itself if it holds none that QEMU takes.

    Offsets are those of Linux's Documentation/x86/boot.rst.
    """
    if image[0x202:0x206] != b"HdrS":
        return image
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = _unpack(image[start : start + length])
    return elf if elf.startswith(ELF) and PVH_NOTE in elf else image


def _unpack(payload: bytes) -> bytes:
    try:
        if payload.startswith(lz4.MAGIC):
            return lz4.decode_legacy(payload, MAX_KERNEL)
        if payload.startswith(b"\x1f\x8b"):
            return gzip.decompress(payload[:-4])
        if payload.startswith(b"\xfd7zXZ"):
            return lzma.LZMADecompressor().decompress(payload, MAX_KERNEL)
        if payload.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(payload, MAX_KERNEL)
    except (lz4.LZ4Error, OSError, EOFError, lzma.LZMAError) as err:
        raise BuildFailed(f"the kernel's payload is damaged: {err}") from err
    return b""  # zstd and others: boot the bzImage as it is


def load_order(root: Path, wanted: Iterable[str]) -> tuple[Module, ...]:
    """Return the wanted modules under `root` and all they need, each after what it needs.

    A package has no modules.dep (its postinst makes it), so the answer is read from the modules'
    own `.modinfo`. A name that no file has is built into the kernel, and left out.
    """
    files = {_module_name(path): path for path in sorted(root.rglob("*.ko*"))}
    order: dict[str, Module] = {}
    for name in wanted:
        _add_module(_canonical(name), files, order, ())
    return tuple(order.values())


def _add_module(
    name: str, files: Mapping[str, Path], order: dict[str, Module], parents: tuple[str, ...]
) -> None:
    if name in parents:
        raise BuildFailed(f"modules need each other in a circle: {' '.join((*parents, name))}")
    if name in order or name not in files:
        return
    module = read_module(files[name])
    for need in module.needs:
        _add_module(need, files, order, (*parents, name))
    order[name] = module


def read_module(path: Path) -> Module:
    """Read one module file, `.ko` or `.ko.xz`."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    found = re.search(rb"\0depends=([^\0]*)\0", data)
    words = found[1].decode().split(",") if found and found[1] else []
    return Module(_module_name(path), tuple(map(_canonical, words)), _unsigned(data))


def _unsigned(data: bytes) -> bytes:
    """Cut the signature off: checking it costs a guest under TCG 10-90 ms, per module.

    The kernel would mark itself tainted (E) either way: we keep it from loading its certificates.
    """
    if not data.endswith(SIGNATURE_MAGIC):
        return data
    end = len(data) - len(SIGNATURE_MAGIC)
    size = int.from_bytes(data[end - 4 : end], "big")  # struct module_signature ends with it
    return data[: end - 12 - size]


def _module_name(path: Path) -> str:
    return _canonical(path.name.removesuffix(".xz").removesuffix(".ko"))


def _canonical(name: str) -> str:
    return name.replace("-", "_")
