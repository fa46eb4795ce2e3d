"""`hostctl image build|list`: the small guests that hostctl makes itself."""

import argparse
from typing import Any

import hostctl_images
from hostctl_images import Image

from . import render, units


def build(args: argparse.Namespace) -> int:
    """Build an image; quick when it is built already."""
    image = hostctl_images.build(args.image, force=args.force, progress=render.talk)
    if args.json:
        render.json_out(_as_json(image.name, image))
    else:
        render.talk(f"image {image.name} is ready ({units.show_size(image.size_bytes)})")
    return 0


def list_images(args: argparse.Namespace) -> int:
    """List the images that are built, and the recipes that are not."""
    built = {image.name: image for image in hostctl_images.available()}
    names = sorted({*built, *hostctl_images.recipes()})
    if args.json:
        render.json_out([_as_json(name, built.get(name)) for name in names])
    else:
        head = ("IMAGE", "SIZE", "BUILT", "DIGEST")
        print(render.table(head, [_row(name, built.get(name)) for name in names]))
    return 0


def _as_json(name: str, image: Image | None) -> dict[str, Any]:
    return {
        "name": name,
        "built": image and image.built.isoformat(),
        "size_bytes": image and image.size_bytes,
        "digest": image and image.digest,
        "kernel": image and str(image.kernel),
        "initrd": image and str(image.initrd),
        "append": image and image.append,
    }


def _row(name: str, image: Image | None) -> tuple[str, str, str, str]:
    if image is None:
        return (name, "-", "no", "-")
    when = f"{image.built.astimezone():%Y-%m-%d %H:%M}"
    return (name, units.show_size(image.size_bytes), when, image.digest[:12])
