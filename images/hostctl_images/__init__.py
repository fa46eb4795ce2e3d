"""Small guests, built from the distribution's packages: no root, no network but for those.

    image = hostctl_images.build("tiny")    # quick when it is built already
    image.kernel, image.initrd, image.append

Recipes are code in this package; images/README.md has the matrix, the sizes and the boot times.
"""

from __future__ import annotations

from .errors import BuildFailed, ImageError, ImageNotFound
from .image import Image, available, build, find, recipes

__all__ = [
    "BuildFailed",
    "Image",
    "ImageError",
    "ImageNotFound",
    "available",
    "build",
    "find",
    "recipes",
]
