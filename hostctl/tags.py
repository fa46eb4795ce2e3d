"""Tags: words that select machines, kept beside what a machine is made of, for they may change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .backends.interface import check_name
from .errors import BackendError, ConfigError
from .state import MachineFiles, read_json, write_json

__all__ = ["MAX_TAGS", "check_tags", "read_tags", "write_tags"]

MAX_TAGS: Final = 64  # a word or two each is meant; the file is read at every selection by tag


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags as they are kept: sorted, each once, without the @ that they may be typed with.

    Raises:
        ConfigError: one is not allowed, by the rule of machine names, or there are too many.
    """
    found = tuple(sorted({check_name(tag.removeprefix("@"), "tag") for tag in tags}))
    if len(found) > MAX_TAGS:
        raise ConfigError(f"{len(found)} tags are too many", hint=f"use at most {MAX_TAGS}")
    return found


def read_tags(files: MachineFiles) -> tuple[str, ...]:
    """Return the tags of a machine, sorted. Raises BackendError if their file is damaged."""
    data = read_json(files.tags)
    if data is None:
        return ()
    try:
        return check_tags(data["tags"])
    except (KeyError, TypeError, AttributeError, ConfigError) as err:
        hint = f"remove {files.tags}"
        raise BackendError(f"{files.tags} is damaged: {err!r}", hint=hint) from err


def write_tags(files: MachineFiles, tags: Iterable[str]) -> tuple[str, ...]:
    """Keep these tags instead, atomically; return them as they are kept.

    Raises:
        ConfigError: see check_tags; nothing was written.
    """
    found = check_tags(tags)
    if found:
        write_json(files.tags, {"tags": list(found)})
    else:
        files.tags.unlink(missing_ok=True)
    return found
