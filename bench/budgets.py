"""What hostctl promises, and whether these samples keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from . import cli, memory
from .line import BOTH, EXEC, FLOOR_C, FLOOR_SHELL, GET, PING, PUT
from .samples import Samples, Series, Spread

__all__ = ["Verdict", "table", "verdicts"]

_WIRE_MBPS: Final = 1000.0
_MEMORY_MIB: Final = 64.0
_CLI_MS: Final = 250.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, and what was measured; without a limit it only explains others."""

    what: str
    measured: str
    value: Spread
    sign: str  # ≤ or ≥
    limit: float | None
    unit: str

    @property
    def is_kept(self) -> bool | None:
        """Whether it is; None where nothing is promised."""
        if self.limit is None:
            return None
        least = self.sign == "≥"
        return self.value.median >= self.limit if least else self.value.median <= self.limit


def verdicts(samples: Samples) -> Iterator[Verdict]:
    """Judge every promise, in the order of the README's table."""
    yield _ratio(samples, "ping, to raw echo", PING, "raw", "≤", 3)
    yield _ratio(samples, "exec /bin/true, to qga", EXEC, "qga", "≤", 0.45)
    yield _ratio(samples, "exec with both streams, to qga", BOTH, "qga", "≤", 0.7)
    for task, least in ((PUT, 0.75), (GET, 0.6)):
        yield _ratio(samples, f"{task}, to the raw line", task, "raw", "≥", least)
    for task in (PUT, GET):
        yield _ratio(samples, f"{task}, to qga", task, "qga", "≥", 10)
    for way in ("put", "get"):
        series = samples.get(memory.TASK, way)
        worst = Spread(max(series.medians), min(series.medians), max(series.medians))
        what = f"host memory above idle, huge {way}, the worst"
        yield Verdict(what, f"{worst.median:.1f} MiB", worst, "≤", _MEMORY_MIB, "MiB")
    yield _command_line(samples)
    for task, contender, series in samples:
        if task.startswith("wire: ") and task != "wire: plain recv":
            yield _wire(task, contender, series)
    yield from _explained(samples)


def table(found: list[Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    rows = ["| what | measured | is | rounds | must be | |", "|---|---|--:|--:|--:|---|"]
    words = {True: "kept", False: "**missed**", None: ""}
    for each in found:
        limit = "" if each.limit is None else f"{each.sign} {_shown(each.limit, each.unit)}"
        value, least, most = (
            _shown(number, each.unit)
            for number in (each.value.median, each.value.least, each.value.most)
        )
        rows.append(
            f"| {each.what} | {each.measured} | {value} | {least} to {most} | {limit} "
            f"| {words[each.is_kept]} |"
        )
    return "\n".join(rows)


def _ratio(
    samples: Samples,
    what: str,
    task: str,
    other: str,
    sign: str = "",
    limit: float | None = None,
    *,
    ours: str = "hostctl",
) -> Verdict:
    """Compare ours with another contender at the same task."""
    unit = samples.get(task, other).unit
    mine, theirs = samples.median(task, ours), samples.median(task, other)
    measured = f"{_figure(mine)} : {_figure(theirs)} {unit} ({other})"
    return Verdict(what, measured, samples.ratio(task, ours, other), sign, limit, "x")


def _command_line(samples: Samples) -> Verdict:
    whole, api = samples.get(cli.TASK, "process"), samples.get(cli.TASK, "API")
    over = Spread(
        whole.spread.median - api.spread.median,
        *_range(whole, api, lambda a, b: a - b),
    )
    bare = samples.median(cli.TASK, "bare Python")
    measured = (
        f"{whole.spread.median:.0f} - {api.spread.median:.0f} ms (bare Python alone {bare:.0f})"
    )
    return Verdict(f"`{cli.TASK}` above the API", measured, over, "≤", _CLI_MS, "ms")


def _range(a: Series, b: Series, join: Callable[[float, float], float]) -> tuple[float, float]:
    joined = [join(*pair) for pair in zip(a.medians, b.medians, strict=True)]
    return min(joined), max(joined)


def _wire(task: str, contender: str, series: Series) -> Verdict:
    spread = series.spread
    measured = f"{_figure(spread.median)} MB/s"
    return Verdict(task, measured, spread, "≥", _WIRE_MBPS, "MB/s")


def _explained(samples: Samples) -> Iterator[Verdict]:
    """How near to what the guest itself needs: no agent is faster than its own fork and exec."""
    for what, task, other in (
        ("exec /bin/true, to the guest's shell alone", EXEC, FLOOR_SHELL),
        ("exec /bin/true, to C alone in the guest", EXEC, FLOOR_C),
        ("both streams, to the guest's shell alone", BOTH, FLOOR_SHELL),
        ("a put, to a raw line that keeps nothing", PUT, "raw, not kept"),
    ):
        yield _ratio(samples, what, task, other)
    what = "ping by its own figure, to raw echo"
    yield _ratio(samples, what, PING, "raw", ours="hostctl, its own figure")
    whole = samples.get(memory.TASK, "get, QEMU").spread
    yield Verdict("QEMU's growth in a huge get", f"{whole.median:.1f} MiB", whole, "", None, "MiB")


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _shown(value: float, unit: str) -> str:
    return f"{_figure(value)} {unit}" if unit != "x" else f"{_figure(value)} x"
