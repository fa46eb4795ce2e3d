"""A folder with everything that a tree may have, and what two such folders have in common."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["HOLE", "everything", "looks"]

HOLE = 4 << 20


def everything(root: Path) -> Path:
    """Fill a new folder; its times are in the past, so that a copy must set them."""
    root.mkdir()
    (root / "plain").write_bytes(b"hello\n")
    (root / "empty").touch()
    (root / "program").write_bytes(b"#!/bin/sh\n")
    (root / "program").chmod(0o755)
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "sub" / "deeper" / "file").write_bytes(os.urandom(70_000))
    (root / "sub" / "void").mkdir(mode=0o700)
    (root / "sub" / "up").symlink_to("../plain")
    (root / "sub" / "nowhere").symlink_to("none")
    os.link(root / "plain", root / "sub" / "same")
    (root / "sub" / ("n" * 150)).mkdir()
    (root / "sub" / ("n" * 150) / ("m" * 200)).write_bytes(b"long")
    (root / "odd 'name'\n$x\\").write_bytes(b"odd")
    os.fsencode(root / "x").decode()
    with open(os.fsencode(root) + b"/\xff\xfe", "wb") as file:
        file.write(b"no UTF-8")
    (root / "-rf").write_bytes(b"dash")
    with (root / "sub" / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(HOLE)
        file.write(b"middle")
        file.truncate(2 * HOLE)
    os.link(root / "sub" / "holes", root / "holes too")
    (root / "sub" / "holes").chmod(0o640)
    for number, (folder, _, names) in enumerate(os.walk(root, topdown=False)):
        for name in names:
            os.utime(os.path.join(folder, name), (1e9, 1e9 + number), follow_symlinks=False)
        os.utime(folder, (1e9, 1e9 + 50 + number))
    return root


def looks(root: Path) -> dict[str, tuple[object, ...]]:
    """Return all that a copy keeps, by path."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in (".", *sorted(folders + files)):
            path = Path(folder) / name
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = ("link", os.readlink(path))
            elif path.is_dir():
                found[key] = ("folder", mode, int(status.st_mtime))
            else:
                first = names.setdefault(status.st_ino, key)
                found[key] = ("file", mode, int(status.st_mtime), path.read_bytes(), first)
    return found
