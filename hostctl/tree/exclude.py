"""Patterns for what is left out of a tree: `*.o`, `build`, `docs/*.html`, `/top-level-only`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = ["Exclude"]


class Exclude:
    """Tells what is left out. A pattern matches names at any depth, and never across a slash.

    One that begins with a slash matches from the tree's root only. A folder that is left out is so
    with all that is in it.
    """

    def __init__(self, patterns: Iterable[str | bytes] = ()) -> None:
        self._patterns = [_parsed(pattern) for pattern in patterns if pattern.strip()]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __call__(self, path: bytes) -> bool:
        """Tell whether a path, relative to the tree's root, is left out."""
        if not self._patterns:
            return False
        parts = path.split(b"/")
        return any(_is_hit(pattern, parts, anchored) for anchored, pattern in self._patterns)

    def names(self) -> list[bytes]:
        """Return the patterns of one name, at any depth: those that a guest's find knows too."""
        return [
            pattern[0] for anchored, pattern in self._patterns if not anchored and len(pattern) == 1
        ]


def _is_hit(pattern: list[bytes], parts: list[bytes], anchored: bool) -> bool:
    last = 0 if anchored else len(parts) - len(pattern)
    if len(pattern) > len(parts):
        return False
    return any(
        all(fnmatchcase(part, glob) for part, glob in zip(parts[at:], pattern, strict=False))
        for at in range(last + 1)
    )


def _parsed(pattern: str | bytes) -> tuple[bool, list[bytes]]:
    text = pattern.encode("utf-8", "surrogateescape") if isinstance(pattern, str) else pattern
    return text.startswith(b"/"), text.strip(b"/").split(b"/")
