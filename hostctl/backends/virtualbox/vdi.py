"""VirtualBox's own disk format, as far as it takes to write one: dynamic, empty or of a raw image.

Written here rather than by VirtualBox, so that the file it is made from is never opened, registered
or locked there. Layout: VDICore.h of VirtualBox, version 1.1.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["SIGNATURE", "SIGNATURE_AT", "write"]

SIGNATURE: Final = struct.pack("<I", 0xBEDA107F)
SIGNATURE_AT: Final = 0x40

_TEXT: Final = b"<<< hostctl Disk Image >>>\n"
_VERSION: Final = 0x0001_0001
_HEADER_BYTES: Final = 0x190
_DYNAMIC: Final = 1
_BLOCK: Final = 1 << 20
_FREE: Final = 0xFFFF_FFFF  # a block that was never written
_SECTOR: Final = 512
# text, signature, version, header's size, type, flags, comment, where map and data begin,
# geometry (of no use since LBA), sector's size, unused, disk's size, block's size, extra bytes
# per block, blocks, blocks in the file, ids of image and content, and of the parent's, geometry.
_HEADER: Final = struct.Struct("<64s4sIIII256sII12sIIQIIII16s16s16s16s16s")
_NONE: Final = bytes(16)


def write(target: Path, size_bytes: int, source: BinaryIO | None = None) -> None:
    """Write a new disk of `size_bytes`, rounded up to sectors, with what `source` holds.

    Blocks of zeroes take no room. On failure a part may be left.
    """
    size = -(-size_bytes // _SECTOR) * _SECTOR
    blocks = -(-size // _BLOCK)
    data_at = _BLOCK + _aligned(4 * blocks)
    table = [_FREE] * blocks
    with target.open("xb") as file:
        used = 0
        for index, block in _filled(source, blocks) if source else ():
            file.seek(data_at + used * _BLOCK)
            file.write(block.ljust(_BLOCK, b"\0"))
            table[index] = used
            used += 1
        file.seek(_BLOCK)
        file.write(struct.pack(f"<{blocks}I", *table))
        file.seek(0)
        file.write(_header(size, blocks, used, data_at))
        file.truncate(data_at + used * _BLOCK)
        file.flush()
        os.fsync(file.fileno())


def _header(size: int, blocks: int, used: int, data_at: int) -> bytes:
    sector = struct.pack("<I", _SECTOR)
    return _HEADER.pack(
        *(_TEXT, SIGNATURE, _VERSION, _HEADER_BYTES, _DYNAMIC, 0, b""),
        *(_BLOCK, data_at, bytes(12), _SECTOR, 0, size, _BLOCK, 0, blocks, used),
        *(uuid.uuid4().bytes_le, uuid.uuid4().bytes_le, _NONE, _NONE, bytes(12) + sector),
    )


def _filled(source: BinaryIO, blocks: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that hold anything; holes of the file are not even read."""
    fd, end = source.fileno(), os.fstat(source.fileno()).st_size
    index = 0
    while index < blocks:
        try:
            index = max(index, os.lseek(fd, index * _BLOCK, os.SEEK_DATA) // _BLOCK)
        except OSError:  # nothing but a hole follows, or it is the end
            return
        if index * _BLOCK >= end or index >= blocks:
            return
        block = os.pread(fd, _BLOCK, index * _BLOCK)
        if block.strip(b"\0"):
            yield index, block
        index += 1


def _aligned(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
