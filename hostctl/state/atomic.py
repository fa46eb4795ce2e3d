"""How we write and remove: files are replaced atomically and made durable, JSON is checked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BackendError

__all__ = [
    "TEMPORARY",
    "random_suffix",
    "read_json",
    "remove_tree",
    "sync_directory",
    "write_atomic",
    "write_json",
]

TEMPORARY = ".tmp-"


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: one sees the old content or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}{random_suffix()}")
    try:
        with open(temporary, "xb", opener=_private) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path` by `data` as JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None when there is no such file.

    Raises:
        BackendError: the file is not ours, or damaged.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
    except ValueError as err:
        raise BackendError(f"{path} is damaged: {err}", hint=f"remove {path.parent}") from err
    if not isinstance(data, dict):
        raise BackendError(f"{path} is damaged: not an object", hint=f"remove {path.parent}")
    return data


def remove_tree(path: Path) -> None:
    """Remove a directory with all it holds; what cannot be removed stays, for the next sweep."""
    import shutil  # here, for it is slow to import and seldom used

    shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Make the renames in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def random_suffix() -> str:
    """Return what makes the name of a temporary file or folder ours alone."""
    return os.urandom(4).hex()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
