"""A program of a package with the libraries it needs, found in the packages that it depends on.

Read from the ELF files themselves: the host may have other versions, or none.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import packages, procs
from .errors import BuildFailed
from .packages import Package

__all__ = ["Closure", "gather"]

MAX_PACKAGES = 20  # qemu-guest-agent's are found in 7
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3  # elf.h: PT_*
_NULL, _NEEDED, _STRTAB = 0, 1, 5  # elf.h: DT_*


class Closure(NamedTuple):
    """A program, its interpreter and its libraries, by their paths in the image."""

    files: dict[str, bytes]
    packages: tuple[Package, ...]


def gather(
    package: Package, program: str, folder: Path, fetch: Callable[[str], Package]
) -> Closure:
    """Return `program` of `package` and all it needs; packages are unpacked below `folder`.

    Raises:
        BuildFailed: a library is in none of the packages.
    """
    taken, waiting, known = [package], _depends(package), {package.name}
    packages.unpack(package, folder)
    text = (folder / program).read_bytes()
    interpreter, wanted = _needs(text)
    files, names = {program: text}, [Path(interpreter).name, *wanted]
    while names:
        name = names.pop(0)
        target = interpreter.lstrip("/") if name == Path(interpreter).name else f"lib/{name}"
        if target in files:
            continue
        while (found := _library(folder, name)) is None:
            more = next((each for each in waiting if each not in known), None)
            if more is None or len(taken) >= MAX_PACKAGES:
                raise BuildFailed(f"{name}, which {program} needs, is in no package")
            known.add(more)
            taken.append(fetch(more))
            packages.unpack(taken[-1], folder)
            waiting += _depends(taken[-1])
        files[target] = found.read_bytes()
        names += _needs(files[target])[1]
    return Closure(files, tuple(taken))


def _depends(package: Package) -> list[str]:
    """Return the names that a package depends on, the first of each alternative."""
    text = procs.run(["dpkg-deb", "-f", package.path, "Depends"])
    return re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", text)


def _library(folder: Path, name: str) -> Path | None:
    """Return a library's file. Links that are absolute lead below `folder` too."""
    # Not glob: it leaves out a link whose absolute target is not on this host.
    found = [Path(at, name) for at, _, files in os.walk(folder) if name in files]
    for path in sorted(found):
        for _ in range(4):
            if not path.is_symlink():
                break
            link = path.readlink()
            path = folder / link.relative_to("/") if link.is_absolute() else path.parent / link
        if path.is_file():
            return path
    return None


def _needs(data: bytes) -> tuple[str, list[str]]:
    """Return the interpreter ("" for a library) and the libraries of an ELF file."""
    try:
        return _read_elf(data)
    except (struct.error, ValueError, StopIteration) as err:
        raise BuildFailed(f"a program of a package is no ELF file for amd64: {err}") from err


def _read_elf(data: bytes) -> tuple[str, list[str]]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("another magic")
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    heads = [struct.unpack_from("<IIQQQQ", data, table + size * n) for n in range(count)]
    interpreter = next((_string(data, head[2]) for head in heads if head[0] == _INTERPRETER), "")
    dynamic = next((head for head in heads if head[0] == _DYNAMIC), None)
    if dynamic is None:
        return interpreter, []
    tags = list(_tags(data, dynamic[2]))
    strings = next(value for tag, value in tags if tag == _STRTAB)
    base = next(h[2] - h[3] for h in heads if h[0] == _LOAD and h[3] <= strings < h[3] + h[5])
    return interpreter, [_string(data, base + strings + v) for tag, v in tags if tag == _NEEDED]


def _tags(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    while (pair := struct.unpack_from("<qQ", data, at))[0] != _NULL:
        yield pair
        at += 16


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
