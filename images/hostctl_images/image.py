"""Images in the cache folder: what they are, which there are, whether one is still up to date.

Building is builder.py's; it is loaded when something must be built.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import ImageNotFound

__all__ = ["Image", "available", "build", "cache_folder", "find", "recipes", "texts_of"]

MANIFEST = "manifest.json"
RECIPES = ("tiny", "tiny-qga")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. Its paths stay the same when it is built again."""

    name: str
    kernel: Path
    initrd: Path
    append: str
    digest: str
    size_bytes: int
    built: datetime


def recipes() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return RECIPES


def build(
    name: str, *, force: bool = False, progress: Callable[[str], None] | None = None
) -> Image:
    """Return image `name`, built if it is not there or out of date. Safe to call at once from many.

    Args:
        name: one of `recipes()`.
        force: build anyway, from the newest packages.
        progress: called with a line before each slow step.

    Raises:
        ImageNotFound: there is no such recipe.
        BuildFailed: an input is missing; an image that was there is untouched.
    """
    from .builder import build as run  # here, for most callers only look

    _check_name(name)
    return run(name, force=force, progress=progress)


def find(name: str) -> Image:
    """Return image `name` as it was built; touches no network.

    Raises:
        ImageNotFound: it is not built, or what it is made of has changed since.
    """
    _check_name(name)
    hint = f"hostctl image build {name}"
    folder = images_folder() / name
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        image = _image(name, folder, manifest)
        recorded = manifest["texts"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ImageNotFound(f"image {name} is not built", hint=hint) from err
    if recorded != texts_of(name):
        raise ImageNotFound(f"image {name} is out of date: its recipe or agent changed", hint=hint)
    return image


def available() -> tuple[Image, ...]:
    """Return the images that `find` finds."""
    images = []
    for name in RECIPES:
        try:
            images.append(find(name))
        except ImageNotFound:
            continue
    return tuple(images)


def cache_folder() -> Path:
    """Return the folder of everything that can be made again."""
    if own := os.environ.get("HOSTCTL_CACHE_DIR"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "hostctl"


def images_folder() -> Path:
    """Return where images are: one link per name, to the folder of its last build."""
    return cache_folder() / "images"


def texts_of(name: str) -> Mapping[str, str]:
    """Return the digests of our texts that make the image: its files, and the code itself."""
    from . import tiny, tiny_qga

    ours = tiny.texts() if name == "tiny" else tiny_qga.texts()
    code = ("tiny",) if name == "tiny" else ("tiny", "tiny_qga", "closure")
    digests = {part: hashlib.sha256(text).hexdigest() for part, text in ours.items()}
    return {"recipe": code_digest(*code, "cpio", "kernel", "builder"), **digests}


def code_digest(*modules: str) -> str:
    """Return one digest over modules (or packages) of this package."""
    total = hashlib.sha256()
    for module in modules:
        path = Path(__file__).parent / module
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        total.update(source.read_bytes())
    return total.hexdigest()


def _check_name(name: str) -> None:
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise ImageNotFound(f"there is no image {name!r}", hint=f"images are: {known}")


def _image(name: str, folder: Path, manifest: Mapping[str, Any]) -> Image:
    kernel, initrd = folder / "vmlinux", folder / "initrd"
    return Image(
        name=name,
        kernel=kernel,
        initrd=initrd,
        append=str(manifest["append"]),
        digest=str(manifest["digest"]),
        size_bytes=kernel.stat().st_size + initrd.stat().st_size,
        built=datetime.fromtimestamp(manifest["built"], UTC),
    )
