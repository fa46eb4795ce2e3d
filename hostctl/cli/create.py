"""`hostctl create`: a new machine out of an image, or of a kernel and disks."""

import argparse
from pathlib import Path
from typing import Final

import hostctl_images
from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.errors import MachineExists
from hostctl.machine import Machine

from . import opening, render, units
from .exits import UsageError
from .login import keep_login

DEFAULT_IMAGE: Final = "tiny"
NO_IMAGE: Final = "none"
_DISK_KEYS: Final = ("size", "format")


def create(args: argparse.Namespace) -> int:
    """Make the machine; build its image first when there is none."""
    spec = spec_of(args)
    if spec.image is not None:
        opening.run(_refuse_taken(spec.name))  # before a build of half a minute
        ensure_image(spec.image)
    return opening.run(_create(args, spec))


def spec_of(args: argparse.Namespace) -> MachineSpec:
    """Return what the command line describes.

    Raises:
        UsageError: its parts contradict each other.
    """
    if args.image and args.kernel:
        raise UsageError("create: --image and --kernel exclude each other; an image has a kernel")
    if args.initrd and not args.kernel:
        raise UsageError("create: --initrd goes with --kernel; an image has its own")
    disks = tuple(map(parse_disk, args.disk))
    return MachineSpec(
        name=args.name,
        image=_image(args, disks),
        kernel=_file(args.kernel),
        initrd=_file(args.initrd),
        append=args.append or "",
        memory_mib=args.memory,
        cpus=args.cpus,
        disks=disks,
        accel=args.accel,
        extra_args=tuple(args.qemu_arg),
    )


def _image(args: argparse.Namespace, disks: tuple[DiskSpec, ...]) -> str | None:
    """Return the named image; or else the default, unless a disk holds something to boot."""
    if args.kernel or args.image == NO_IMAGE:
        return None
    if args.image or args.backend == "virtualbox":  # which boots no kernel by itself
        return str(args.image) if args.image else None
    return None if any(disk.base for disk in disks) else DEFAULT_IMAGE


def parse_disk(text: str) -> DiskSpec:
    """Read `FILE`, `FILE,size=2G,format=raw` or `size=2G`; a comma inside FILE cannot be written.

    Raises:
        UsageError: an unknown key, or a size that is none.
    """
    words = text.split(",")
    base = None if _is_option(words[0]) else _file(words.pop(0))
    options = dict(word.partition("=")[::2] for word in words)
    unknown = [key for key in options if key not in _DISK_KEYS]
    if unknown:
        raise UsageError(f'create: --disk {text}: unknown "{unknown[0]}"; write size= or format=')
    try:
        size_bytes = units.parse_size(options["size"]) if "size" in options else None
    except ValueError as err:
        raise UsageError(f"create: --disk {text}: {err}") from err
    if base is None and size_bytes is None:
        raise UsageError(f"create: --disk {text}: name a file, or size=SIZE for an empty disk")
    return DiskSpec(base=base, size_bytes=size_bytes, format=options.get("format"))


async def _create(args: argparse.Namespace, spec: MachineSpec) -> int:
    async with opening.open_controller() as controller:
        machine = await controller.create(
            spec, backend=args.backend, connect=args.connect, tags=args.tag
        )
        await _keep_login(machine, args)
        if args.start:
            render.talk(f"{spec.name}: created, starting")
            await machine.start(timeout_s=args.timeout_s)
        state, tags = (await machine.state()).value, list(machine.tags)
    if args.json:
        render.json_out({"name": spec.name, "image": spec.image, "state": state, "tags": tags})
    else:
        next_step = "" if args.start else f'; next: "hostctl start {spec.name}"'
        render.talk(f"{spec.name}: {'ready' if args.start else 'created'}{next_step}")
    return 0


async def _keep_login(machine: Machine, args: argparse.Namespace) -> None:
    try:
        keep_login(machine, args)
    except BaseException:  # a file that others may read: there shall be no machine without it
        await machine.delete()
        raise


async def _refuse_taken(name: str) -> int:
    async with opening.open_controller() as controller:
        if name in {machine.name for machine in controller.machines()}:
            raise MachineExists(name)
    return 0


def ensure_image(name: str) -> None:
    """Build an image that has a recipe; any other name is the controller's to refuse."""
    built = {image.name for image in hostctl_images.available()}
    if name not in built and name in hostctl_images.recipes():
        render.talk(f"image {name} is not there yet: building it, once")
        hostctl_images.build(name, progress=render.talk)


def _file(text: str | None) -> Path | None:
    """Return an absolute path: the machine outlives this folder."""
    return None if text is None else Path(text).absolute()


def _is_option(word: str) -> bool:
    return word.partition("=")[0] in _DISK_KEYS and "=" in word
