"""Sizes and durations as people type them, and as they read them.

Owns the two spellings (`256M`, `1.5s`) and their errors; knows nothing of argparse.
"""

import re
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_FACTOR: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.IGNORECASE)
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Return bytes. K, M, G and T are powers of 1024, as QEMU has them; no letter is bytes.

    Raises:
        ValueError: not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a size; write it like 256M or 2G')
    size = float(match[1]) * _FACTOR[match[2].upper()]
    if size != int(size):
        raise ValueError(f'"{text}" is not a whole number of bytes')
    return int(size)


def parse_memory_mib(text: str) -> int:
    """Return MiB; a bare number is MiB too, because nobody means 256 bytes.

    Raises:
        ValueError: not a size, less than 1 MiB, or not a whole number of MiB.
    """
    wrong = ValueError(f'"{text}" is not a whole number of MiB; write it like 256M or 2G')
    try:
        size = parse_size(f"{text}M" if text.strip().isdecimal() else text)
    except ValueError:
        raise wrong from None
    mib, rest = divmod(size, 2**20)
    if rest or not mib:
        raise wrong
    return mib


def parse_duration(text: str) -> float:
    """Return seconds; a bare number is seconds.

    Raises:
        ValueError: not a duration, or zero.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a duration; write it like 500ms, 1.5s, 2m or 1h')
    seconds = float(match[1]) * _SECONDS[match[2].lower()]
    if seconds <= 0:
        raise ValueError(f'"{text}" is no time at all; leave the option out to wait without end')
    return seconds


def show_size(size_bytes: float) -> str:
    """Write a size as a person reads it: three digits, binary units."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
    return f"{size_bytes / 1024:.3g} TiB"


def show_duration(seconds: float) -> str:
    """Write a duration as a person reads it: two units at most."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
