"""Samples: what was measured, by whom, in which round. Owns medians and ratios, nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MB", "Samples", "Series", "Spread"]

MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the range of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Series:
    """One contender at one task: all its samples, round by round."""

    unit: str
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(values) for values in self.rounds]

    @property
    def spread(self) -> Spread:
        """Median and range of the rounds' medians."""
        return Spread.of(self.medians)

    def converted(self, unit: str, convert: Callable[[float], float]) -> Series:
        """Return the same samples in another unit."""
        return Series(unit, [[convert(value) for value in values] for values in self.rounds])


class Samples:
    """All series of a run, by task and contender."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def add(self, task: str, contender: str, unit: str, values: Sequence[float]) -> None:
        """Add one round."""
        self._series.setdefault((task, contender), Series(unit)).rounds.append(list(values))

    def set(self, task: str, contender: str, series: Series) -> None:
        """Enter a series made of another one."""
        self._series[task, contender] = series

    def get(self, task: str, contender: str) -> Series:
        """Return a series. Raises KeyError if it was not measured."""
        return self._series[task, contender]

    def has(self, task: str, contender: str) -> bool:
        """Tell whether it was measured."""
        return (task, contender) in self._series

    def median(self, task: str, contender: str) -> float:
        """Return the median of a series' rounds."""
        return self.get(task, contender).spread.median

    def contenders(self, task: str) -> list[str]:
        """Return who did a task."""
        return [contender for known, contender in self._series if known == task]

    def ratio(self, task: str, ours: str, theirs: str) -> Spread:
        """Return the ratio of the medians, with the range of the rounds' own ratios."""
        mine, other = self.get(task, ours), self.get(task, theirs)
        ratios = [a / b for a, b in zip(mine.medians, other.medians, strict=True)]
        return Spread(mine.spread.median / other.spread.median, min(ratios), max(ratios))

    def __iter__(self) -> Iterator[tuple[str, str, Series]]:
        for (task, contender), series in self._series.items():
            yield task, contender, series
