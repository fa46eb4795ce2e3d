"""LZ4's legacy frame, in which x86 kernels are packed: decoding only.

Pure Python, so that no tool and no wheel is needed: 14 MB of kernel become 53 MB in about 3 s, once
per kernel. Layout: magic, then blocks of (size, little-endian, 4 bytes; data), to the end.
"""

from __future__ import annotations

__all__ = ["MAGIC", "LZ4Error", "decode_legacy"]

MAGIC = bytes.fromhex("02214c18")
MIN_MATCH = 4


class LZ4Error(ValueError):
    """The data is not what it should be."""


def decode_legacy(data: bytes, limit_bytes: int) -> bytes:
    """Decode a legacy frame that may be followed by other bytes (a kernel's: its unpacked size).

    Raises:
        LZ4Error: no such frame, a damaged one, or more than `limit_bytes` come out.
    """
    if not data.startswith(MAGIC):
        raise LZ4Error("no LZ4 legacy magic")
    out = bytearray()
    at = len(MAGIC)
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if size == 0 or at + 4 + size > len(data):
            break  # the trailer, which is no block
        try:
            _decode_block(data[at + 4 : at + 4 + size], out)
        except IndexError:
            raise LZ4Error(f"block at {at} ends too early") from None
        if len(out) > limit_bytes:
            raise LZ4Error(f"more than {limit_bytes} bytes come out")
        at += 4 + size
    return bytes(out)


def _decode_block(block: bytes, out: bytearray) -> None:
    """Append what the block says. One loop without calls: it runs millions of times."""
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        at += 1
        length = token >> 4
        if length == 15:
            while (more := block[at]) == 255:
                length += 255
                at += 1
            length += more
            at += 1
        if length:
            out += block[at : at + length]
            at += length
        if at >= end:
            return  # the last sequence has no match
        offset = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            while (more := block[at]) == 255:
                length += 255
                at += 1
            length += more
            at += 1
        length += MIN_MATCH
        start = len(out) - offset
        if offset == 0 or start < 0:
            raise LZ4Error(f"match reaches {offset} bytes back, {len(out)} are there")
        if offset >= length:
            out += out[start : start + length]
        else:  # the match overlaps what it writes: it repeats
            out += (out[start:] * (length // offset + 1))[:length]
