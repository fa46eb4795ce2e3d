"""Logs: begun anew, cut under their writers, quoted so that they are safe to print."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["cut_log", "last_lines", "previous", "put_aside", "tail"]

TAIL_BYTES = 64 * 1024  # of a log that the guest writes: enough for its last words, bounded


def put_aside(log: Path) -> None:
    """Begin a log anew; the one before is kept as `NAME.1`."""
    with contextlib.suppress(FileNotFoundError):
        log.rename(previous(log))


def cut_log(log: Path, limit_bytes: int) -> None:
    """Keep a log that others append to below a size: its end becomes `NAME.1`, it begins anew."""
    with contextlib.suppress(FileNotFoundError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size > limit_bytes:
            file.seek(max(0, size - TAIL_BYTES))
            previous(log).write_bytes(file.read(TAIL_BYTES))
            file.truncate(0)


def previous(log: Path) -> Path:
    """Return where the log before this one is kept."""
    return log.with_name(f"{log.name}.1")


def tail(path: Path, lines: int) -> str:
    """Return the last `lines` lines of a log, made safe to print; '' when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return last_lines(file.read(TAIL_BYTES), lines)
    except FileNotFoundError:
        return ""


def last_lines(said: bytes, lines: int) -> str:
    """Return the last `lines` lines of what a guest said, made safe to print, without empty ones.

    An escape sequence must not reach the terminal of whoever reads an error.
    """
    text = said[-TAIL_BYTES:].decode("utf-8", "replace")
    clean = ("".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines())
    return "\n".join([line.rstrip() for line in clean if line.strip()][-lines:])
