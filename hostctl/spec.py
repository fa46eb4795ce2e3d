"""A machine's spec, from what was asked for to what can be made: images found, paths checked.

The spec itself is `backends.interface.MachineSpec`; back ends know nothing of images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from .backends.interface import DiskSpec, MachineSpec
from .errors import ConfigError

__all__ = ["MAX_DISKS", "has_image", "resolved"]

MAX_DISKS: Final = 16  # each takes a PCI slot; the pc machine has 32, a dozen of them ours


def resolved(spec: MachineSpec) -> MachineSpec:
    """Fill in an image's kernel, make paths absolute, and check that they are there.

    Raises:
        ConfigError: a file is not there, or there are too many disks.
        ImageNotFound: the image is not built, or no longer up to date.
    """
    if spec.image is not None and spec.kernel is None:
        import hostctl_images

        image = hostctl_images.find(spec.image)
        append = f"{image.append} {spec.append}".strip()
        spec = replace(spec, kernel=image.kernel, initrd=image.initrd, append=append)
    disks = tuple(replace(disk, base=_file(disk.base, "disk image")) for disk in spec.disks)
    kernel, initrd = _file(spec.kernel, "kernel"), _file(spec.initrd, "initrd")
    return replace(spec, kernel=kernel, initrd=initrd, disks=_check_disks(disks))


def has_image(name: str) -> bool:
    """Tell whether there is an image of that name, or a recipe to build it."""
    import hostctl_images

    images = {image.name for image in hostctl_images.available()}
    return name in images | set(hostctl_images.recipes())


def _file(path: Path | None, what: str) -> Path | None:
    if path is None:
        return None
    absolute = path.absolute()
    if not absolute.is_file():
        raise ConfigError(f"{what} {path} is not a file")
    return absolute


def _check_disks(disks: tuple[DiskSpec, ...]) -> tuple[DiskSpec, ...]:
    if len(disks) > MAX_DISKS:
        raise ConfigError(f"{len(disks)} disks are too many", hint=f"use at most {MAX_DISKS}")
    return disks
