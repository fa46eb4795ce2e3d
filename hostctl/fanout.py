"""Fan-out: the same work for many names at once, within a limit, results as they arrive.

Knows nothing of machines: it is handed names and a function. What one of them raises is its own
outcome and does not hold up the others; whoever stops listening cancels what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from typing import Any, Final, Generic, Self, TypeVar, cast

from .errors import ConfigError, GroupFailed, Skipped

__all__ = ["PARALLEL", "Fanout", "Outcome", "Results"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")

# Machines at once. A request costs a host some milliseconds and three descriptors, so this keeps
# within the usual 1024 of them; a boot costs a core, and who boots many says --parallel.
PARALLEL: Final = 16
_TOLD: Final = 5  # failures that an error's message quotes


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T_co]):
    """How it went for one name: `error` is None, or it says why there is no `value`."""

    name: str
    duration_s: float
    error: Exception | None
    _value: T_co | None = None

    @property
    def is_ok(self) -> bool:
        """It was done. That a command ended with 0 is another question, see `check=True`."""
        return self.error is None

    @property
    def is_skipped(self) -> bool:
        """It was not done, or given up, because another one failed."""
        return isinstance(self.error, Skipped)

    @property
    def value(self) -> T_co:
        """What it returned. Raises `error` if there is one."""
        if self.error is not None:
            raise self.error
        return cast(T_co, self._value)

    def map(self, change: Callable[[T_co], S]) -> Outcome[S]:
        """Return the same with its value changed, if there is one."""
        value = change(self.value) if self.is_ok else None
        return Outcome(self.name, self.duration_s, self.error, value)


class Results(Mapping[str, Outcome[T_co]]):
    """All outcomes by name, in the order in which the names were given."""

    def __init__(self, outcomes: Iterable[Outcome[T_co]]) -> None:
        self._outcomes = {outcome.name: outcome for outcome in outcomes}

    def __getitem__(self, name: str) -> Outcome[T_co]:
        return self._outcomes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __repr__(self) -> str:
        return f"<Results of {len(self)}, {len(self.failed)} failed>"

    @property
    def failed(self) -> tuple[Outcome[T_co], ...]:
        """Those with an error, without the skipped ones."""
        return tuple(each for each in self.values() if not (each.is_ok or each.is_skipped))

    @property
    def skipped(self) -> tuple[Outcome[T_co], ...]:
        """Those that another one's failure kept from being done."""
        return tuple(each for each in self.values() if each.is_skipped)

    def check(self) -> Self:
        """Return self if every one was done.

        Raises:
            GroupFailed: some were not; the first error is its cause.
        """
        if bad := (*self.failed, *self.skipped):
            shown = "; ".join(f"{each.name}: {each.error}" for each in bad[:_TOLD])
            more = f"; and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
            message = f"{len(bad)} of {len(self)} machines failed: {shown}{more}"
            raise GroupFailed(message, bad) from bad[0].error
        return self

    def map(self, change: Callable[[T_co], S]) -> Results[S]:
        """Return the same with every value changed."""
        return Results(each.map(change) for each in self.values())


class Fanout(Generic[T]):
    """Work that waits to be begun: await it for all results, or iterate to get each as it arrives.

    Once only. Leaving the iteration early cancels what is under way.
    """

    def __init__(
        self,
        names: Iterable[str],
        do: Callable[[str], Awaitable[T]],
        *,
        parallel: int | None = None,
        fail_fast: bool = False,
        is_failure: Callable[[T], bool] | None = None,
        holding: contextlib.AbstractContextManager[object] | None = None,
    ) -> None:
        parallel = PARALLEL if parallel is None else parallel
        if parallel < 1:
            raise ConfigError(f"{parallel} machines at once are none", hint="1 is least")
        self._names = tuple(dict.fromkeys(names))
        self._do = do
        self._parallel = parallel
        self._fail_fast = fail_fast
        self._is_failure = is_failure
        self._holding = holding or contextlib.nullcontext()
        self._todo = iter(self._names)  # shared by the workers: each takes the next
        self._since: dict[str, float] = {}  # when those that were begun were begun
        self._is_begun = False
        self._is_over = False  # one has failed, and that ends all

    def __await__(self) -> Generator[Any, None, Results[T]]:
        return self._all().__await__()

    def __aiter__(self) -> AsyncGenerator[Outcome[T], None]:
        return self._arriving()

    def __del__(self) -> None:
        if not getattr(self, "_is_begun", True):
            warnings.warn("a fan-out was never awaited", RuntimeWarning, stacklevel=1)

    async def _all(self) -> Results[T]:
        found = {outcome.name: outcome async for outcome in self._arriving()}
        return Results(found[name] for name in self._names)

    async def _arriving(self) -> AsyncGenerator[Outcome[T], None]:
        if self._is_begun:
            raise RuntimeError("a fan-out runs only once")
        self._is_begun = True
        arrived: asyncio.Queue[Outcome[T] | None] = asyncio.Queue()
        with self._holding:
            workers = [
                asyncio.create_task(self._work(arrived))
                for _ in range(min(self._parallel, len(self._names)))
            ]
            try:
                async for outcome in self._until_stopped(arrived, len(workers)):
                    yield outcome
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        for outcome in self._rest(arrived):
            yield outcome

    async def _until_stopped(
        self, arrived: asyncio.Queue[Outcome[T] | None], workers: int
    ) -> AsyncGenerator[Outcome[T], None]:
        """Yield outcomes until every worker has ended, or one has failed and that ends all."""
        while workers and not (self._is_over and arrived.empty()):
            outcome = await arrived.get()
            if outcome is None:
                workers -= 1
                continue
            yield outcome

    async def _work(self, arrived: asyncio.Queue[Outcome[T] | None]) -> None:
        try:
            while not self._is_over and (name := next(self._todo, None)) is not None:
                outcome = await self._one(name)
                self._is_over |= self._fail_fast and self._has_failed(outcome)
                arrived.put_nowait(outcome)
        finally:
            arrived.put_nowait(None)

    async def _one(self, name: str) -> Outcome[T]:
        self._since[name] = begin = time.monotonic()
        try:
            value = await self._do(name)
        except Exception as err:
            return self._ended(name, Outcome(name, time.monotonic() - begin, err))
        return self._ended(name, Outcome(name, time.monotonic() - begin, None, value))

    def _ended(self, name: str, outcome: Outcome[T]) -> Outcome[T]:
        del self._since[name]
        return outcome

    def _rest(self, arrived: asyncio.Queue[Outcome[T] | None]) -> Iterator[Outcome[T]]:
        """Yield what ended while all was given up, then those that did not end or begin."""
        while not arrived.empty():
            if outcome := arrived.get_nowait():
                yield outcome
        now = time.monotonic()
        for name, begin in self._since.items():
            yield Outcome(name, now - begin, Skipped("given up, for another machine failed"))
        for name in self._todo:
            yield Outcome(name, 0.0, Skipped("not begun, for another machine failed"))

    def _has_failed(self, outcome: Outcome[T]) -> bool:
        if outcome.error is not None:
            return not outcome.is_skipped
        return self._is_failure is not None and self._is_failure(outcome.value)
