"""How far a transfer is: a bar on a terminal, or JSON lines on stderr for programs."""

import argparse
import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from . import render

if TYPE_CHECKING:
    from hostctl.tree.copy import Moved

EVERY_S: Final = 0.2  # between two lines of JSON


def meter(args: argparse.Namespace, title: str, total_bytes: int | None) -> "Meter":
    """Return what the command line asks for; without a wish, a bar where somebody watches."""
    if args.progress == "json":
        return JsonMeter(title, total_bytes)
    wanted = args.progress != "none" and not args.quiet and not args.json
    return render.Bar(title, total_bytes, wanted=wanted)


class TreeMeter:
    """Tells a meter how far a tree is."""

    def __init__(self, meter: "Meter") -> None:
        self._meter = meter

    def __call__(self, moved: "Moved") -> None:
        self._meter(moved.size_bytes, moved.total_bytes)


class JsonMeter:
    """Prints an object a line: bytes moved and in all, rate, seconds to go; null where unknown."""

    def __init__(self, title: str, total_bytes: int | None) -> None:
        self._title = title
        self._total = total_bytes
        self._began = self._told = time.monotonic()
        self._moved = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell("failed" if error else "done")

    def __call__(self, moved_bytes: int, total_bytes: int | None = None) -> None:
        self._moved, self._total = moved_bytes, total_bytes or self._total
        now = time.monotonic()
        if now - self._told >= EVERY_S:
            self._told = now
            self._tell("progress")

    def _tell(self, event: str) -> None:
        took_s = time.monotonic() - self._began
        rate = self._moved / took_s if took_s > 0 and self._moved else None
        left = None if self._total is None else max(0, self._total - self._moved)
        line = {
            "event": event,
            "name": self._title,
            "moved_bytes": self._moved,
            "total_bytes": self._total,
            "rate_bytes_s": None if rate is None else round(rate),
            "eta_s": None if rate is None or left is None else round(left / rate, 1),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)


Meter: TypeAlias = render.Bar | JsonMeter
"""Is told the bytes moved so far, and the total when it is known; a context manager."""
