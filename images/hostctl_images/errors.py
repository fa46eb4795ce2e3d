"""What can go wrong with images.

HostctlError
└── ImageError
    ├── ImageNotFound   there is no such image, or it is out of date
    └── BuildFailed     an input is missing, or a tool failed
"""

from __future__ import annotations

from hostctl_channels.errors import HostctlError

__all__ = ["BuildFailed", "ImageError", "ImageNotFound"]


class ImageError(HostctlError):
    """Something about an image."""


class ImageNotFound(ImageError):
    """There is no usable image of that name."""


class BuildFailed(ImageError):
    """An image could not be built. What was there before is untouched."""
