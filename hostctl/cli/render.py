"""How things look: tables, JSON, lines on stderr, and a progress bar on a terminal.

stdout is data, stderr is talk. Whatever a guest may have written is made harmless for the
terminal here. rich (100 ms) is imported when a bar is shown, and then only.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final

from . import units

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_AFTER_S: Final = 0.4  # a copy that ends sooner needs no bar, and must not pay for rich


def safe(text: str) -> str:
    """Escape what could steer the terminal: a guest is hostile, and file names may be bytes."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def say(text: str) -> None:
    """Print one line for people, on stderr."""
    print(f"hostctl: {safe(text)}", file=sys.stderr, flush=True)


def talk(text: str) -> None:
    """Say what goes on, if somebody watches; a script's stderr stays empty on success."""
    if sys.stderr.isatty():
        say(text)


def json_out(value: object) -> None:
    """Print one JSON value on one line of stdout."""
    import json

    print(json.dumps(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out columns, two spaces apart, nothing after the last."""
    lines = [tuple(head), *(tuple(safe(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Lay out names and values, one pair a line."""
    lines = list(rows)
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name.ljust(width)}  {safe(value)}".rstrip() for name, value in lines)


def leaf(error: BaseException) -> BaseException:
    """Return the error inside a group which a TaskGroup made of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def error_line(error: BaseException) -> str:
    """Say in one line what failed, on what, why, and what to do next."""
    from hostctl.errors import HostctlError

    from .exits import UsageError

    error = leaf(error)
    if isinstance(error, HostctlError):
        return f"{error}{_next_step(error.hint)}"
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f": {_name(error.filename)}"
        return f"{error.strerror.lower()}{where}"
    what = f"unexpected {type(error).__name__}: {error}"
    return f"{what}; this is a bug in hostctl: -vv shows where, please report it"


def _next_step(hint: str | None) -> str:
    if not hint:
        return ""
    return f'; try "{hint}"' if hint.startswith("hostctl ") else f"; {hint}"


class Bar:
    """A progress bar on stderr, for one transfer; does nothing where nobody watches.

    Call it with the bytes moved so far, and with the total as soon as it is known.
    """

    def __init__(self, title: str, total_bytes: int | None, *, wanted: bool = True) -> None:
        self._title = safe(title)
        self._total = total_bytes
        self._wanted = wanted and sys.stderr.isatty()
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __call__(self, moved_bytes: int, total_bytes: int | None = None) -> None:
        self._total = total_bytes or self._total
        if not self._wanted:
            return
        if self._progress is None:
            if time.monotonic() - self._since < BAR_AFTER_S:
                return
            self._open()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=moved_bytes, total=self._total)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        # rich obeys NO_COLOR itself. The title is a file name: no markup in it.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(self._title, total=self._total)
        self._progress.start()


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        code -= 0xDC00
    if code <= 0xFF:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _name(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)


def uptime(seconds: float | None) -> str:
    """Write how long a machine runs, or a dash."""
    return "-" if seconds is None else units.show_duration(seconds)
