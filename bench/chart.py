"""The comparison as one picture, for the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .line import BOTH, EXEC, FLOOR_SHELL, GET, PING, PUT
from .samples import Samples

__all__ = ["draw", "draw_channels", "draw_clones"]

_BARS: Final = {
    "hostctl": ("hostctl", "#0b6e4f"),
    "raw": ("raw line: C in the guest, nothing but the bytes", "#a9b4c2"),
    "qga": ("QEMU guest agent, at its best", "#e0a458"),
}
_KINDS: Final = {"agent": "#0b6e4f", "guest agent": "#e0a458", "login": "#a9b4c2"}
_BIRTHS: Final = {"boot": "#a9b4c2", "clone": "#e0a458", "pool": "#0b6e4f"}
_BETTER: Final = {"ms": "shorter", "MB/s": "longer"}
_INK: Final = "#24292f"
_FLOOR: Final = "what the guest's shell needs for it, by itself"
_HEIGHT: Final = 0.26  # of a bar, where there are three tasks


def draw(samples: Samples, path: Path, caption: str) -> None:
    """Write the chart to `path`, an SVG."""
    matplotlib.rcParams.update({"svg.hashsalt": "hostctl", "font.size": 11, "text.color": _INK})
    figure = Figure(figsize=(9.6, 4.5), facecolor="white", layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    _panel(left, samples, [PING, EXEC, BOTH], "ms")
    left.set_title("Milliseconds: shorter is better", loc="left", fontsize=12)
    _panel(right, samples, [PUT, GET], "MB/s")
    right.set_title("MB/s of one large file: longer is better", loc="left", fontsize=12)
    entries = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    labels = [*(label for label, _ in _BARS.values()), _FLOOR]
    figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=2,
        frameon=False,
    )
    figure.supxlabel(caption, fontsize=9, color="#57606a")
    figure.savefig(path, metadata={"Date": None})


def draw_channels(samples: Samples, tasks: tuple[str, ...], path: Path) -> None:
    """Write a chart of every channel at each of four tasks to `path`, an SVG."""
    matplotlib.rcParams.update({"svg.hashsalt": "hostctl", "font.size": 10, "text.color": _INK})
    figure = Figure(figsize=(9.6, 5.2), facecolor="white", layout="constrained")
    FigureCanvasSVG(figure)
    for axes, task in zip(figure.subplots(2, 2, sharey=True).flat, tasks, strict=True):
        names = samples.contenders(task)
        values = [samples.median(task, name) for name in names]
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            _bar(axes, row, value, 0.75, name, _KINDS[name.partition(":")[0]])
        _dress(axes, names, min(values), max(values))
        unit = samples.get(task, names[0]).unit
        axes.set_title(f"{task}, {unit}: {_BETTER[unit]} is better", loc="left", fontsize=11)
    figure.savefig(path, metadata={"Date": None})


def draw_clones(
    samples: Samples, tasks: tuple[str, ...], names: tuple[str, ...], path: Path, caption: str
) -> None:
    """Write a chart of what boots, clones and waits to `path`, an SVG; its scale is logarithmic."""
    matplotlib.rcParams.update({"svg.hashsalt": "hostctl", "font.size": 10, "text.color": _INK})
    figure = Figure(figsize=(9.6, 2.6), facecolor="white", layout="constrained")
    FigureCanvasSVG(figure)
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True), tasks, strict=True):
        values = [samples.median(task, name) for name in names]
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            _bar(axes, row, value, 0.75, name, _BIRTHS[name])
        _dress(axes, list(names), min(values), max(values))
        axes.set_title(f"{task}, ms: shorter is better", loc="left", fontsize=11)
    figure.supxlabel(caption, fontsize=9, color="#57606a")
    figure.savefig(path, metadata={"Date": None})


def _panel(axes: Any, samples: Samples, tasks: list[str], unit: str) -> None:
    values = []
    height = _HEIGHT * len(tasks) / 3
    for row, task in enumerate(tasks):
        there = [name for name in _BARS if samples.has(task, name)]
        for place, name in enumerate(there):
            at = row + (place - (len(there) - 1) / 2) * height
            values.append(samples.median(task, name))
            _bar(axes, at, values[-1], height, *_BARS[name])
        if samples.has(task, FLOOR_SHELL):
            _floor(axes, row, samples.median(task, FLOOR_SHELL))
    _dress(axes, tasks, min(values), max(values))


def _bar(axes: Any, at: float, value: float, height: float, label: str, color: str) -> None:
    known = axes.get_legend_handles_labels()[1]
    axes.barh(at, value, height * 0.9, color=color, label=None if label in known else label)
    text = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
    axes.annotate(text, (value, at), (4, 0), textcoords="offset points", va="center", fontsize=10)


def _floor(axes: Any, row: int, value: float) -> None:
    known = axes.get_legend_handles_labels()[1]
    reach = _HEIGHT * 1.2
    axes.plot(
        [value, value],
        [row - reach, row + reach],
        color=_INK,
        linewidth=1.4,
        linestyle=(0, (2, 1.5)),
        label=None if _FLOOR in known else _FLOOR,
    )


def _dress(axes: Any, tasks: list[str], least: float, most: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(least / 3, most * 2.2)  # room for the figures
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(tasks)), [task.replace(" with ", "\nwith ") for task in tasks])
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="both", colors="#57606a", labelsize=9)
    axes.grid(axis="x", color="#eaeef2")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
