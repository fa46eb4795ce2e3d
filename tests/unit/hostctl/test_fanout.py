"""Fan-out: the limit, the order of arrival, failures, and leaving early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from hostctl.errors import ConfigError, GroupFailed, Skipped
from hostctl.fanout import Fanout, Outcome, Results

NAMES = tuple("abcdef")


class Work:
    """Work that ends when a test says so."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.most = 0
        self.cancelled: set[str] = set()
        self._gates = {name: asyncio.Event() for name in NAMES}

    async def __call__(self, name: str) -> str:
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(0)
            await self._gates[name].wait()
        except asyncio.CancelledError:
            self.cancelled.add(name)
            raise
        finally:
            self.running.discard(name)
        return name.upper()

    def end(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()


async def plain(name: str) -> str:
    return name.upper()


async def odd(name: str) -> str:
    if name in "bd":
        raise ValueError(name)
    return name


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    yield Work()
    assert len(asyncio.all_tasks()) == 1, "no task outlives its fan-out"


async def test_all_results_come_in_the_order_of_the_names() -> None:
    results = await Fanout(NAMES, plain, parallel=2)
    assert [(name, each.value) for name, each in results.items()] == [(n, n.upper()) for n in NAMES]
    assert not results.failed
    assert results.check() is results


async def test_outcomes_arrive_as_they_end(work: Work) -> None:
    arrived = []
    work.end("c")
    async for outcome in Fanout(NAMES, work):
        arrived.append(outcome.name)
        work.end({"c": "a", "a": "f", "f": "b", "b": "e", "e": "d"}.get(outcome.name, "d"))
    assert arrived == ["c", "a", "f", "b", "e", "d"]


async def test_no_more_than_the_limit_run_at_once(work: Work) -> None:
    work.end(*NAMES)
    await Fanout(NAMES, work, parallel=2)
    assert work.most == 2
    with pytest.raises(ConfigError, match="0 machines at once"):
        Fanout(NAMES, plain, parallel=0)


async def test_one_that_fails_does_not_hold_up_the_others() -> None:
    results = await Fanout(NAMES, odd, parallel=1)
    assert [each.name for each in results.failed] == ["b", "d"]
    assert [each.value for each in results.values() if each.is_ok] == ["a", "c", "e", "f"]
    with pytest.raises(ValueError, match="b"):
        _ = results["b"].value
    with pytest.raises(GroupFailed, match="2 of 6 machines failed: b: b; d: d") as caught:
        results.check()
    assert [each.name for each in caught.value.outcomes] == ["b", "d"]
    assert isinstance(caught.value.__cause__, ValueError)


async def test_the_first_failure_may_end_all(work: Work) -> None:
    async def do(name: str) -> str:
        if name == "c":
            raise ValueError
        return await work(name)

    work.end("a")
    results = await Fanout(NAMES, do, parallel=3, fail_fast=True)
    assert results["a"].is_ok
    assert [each.name for each in results.failed] == ["c"]
    assert work.cancelled == {"b"}, "a was done, and nothing began in place of c"
    assert {each.name for each in results.skipped} == set("bdef")
    assert "not begun" in str(results["f"].error)
    assert "given up" in str(results["b"].error)


async def test_what_a_failure_is_may_be_said() -> None:
    results = await Fanout(
        NAMES, plain, parallel=1, fail_fast=True, is_failure=lambda value: value == "B"
    )
    assert [each.name for each in results.skipped] == list("cdef")
    assert not results.failed, "it has a value all the same"


async def test_leaving_early_cancels_the_rest(work: Work) -> None:
    work.end("a")
    async with contextlib.aclosing(aiter(Fanout(NAMES, work, parallel=3))) as arriving:
        assert (await anext(arriving)).name == "a"
    assert not work.running
    assert work.cancelled >= {"b", "c"}


async def test_cancelling_the_caller_cancels_all(work: Work) -> None:
    async def wait() -> Results[str]:
        return await Fanout(NAMES, work, parallel=4)

    waiting = asyncio.create_task(wait())
    while len(work.running) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(work.cancelled) == 4


async def test_what_is_held_is_given_back_after_the_last() -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        said.append("opened")
        yield
        said.append("closed")

    async def note(name: str) -> None:
        said.append(name)

    fanout = Fanout("ab", note, holding=held())
    assert said == [], "nothing begins before it is awaited"
    await fanout
    assert said == ["opened", "a", "b", "closed"]


async def test_it_runs_once() -> None:
    fanout = Fanout(NAMES, plain)
    await fanout
    with pytest.raises(RuntimeError, match="only once"):
        await fanout


def test_one_that_nobody_awaits_is_told_of() -> None:
    with pytest.warns(RuntimeWarning, match="never awaited"):
        Fanout(NAMES, plain)


async def test_nothing_to_do_is_done_at_once() -> None:
    assert len(await Fanout((), plain)) == 0


async def test_a_name_given_twice_is_done_once() -> None:
    assert len(await Fanout("aab", plain)) == 2


def test_values_may_be_changed_and_errors_stay() -> None:
    results = Results([Outcome("a", 0.0, None, 2), Outcome("b", 0.0, Skipped("x"), None)])
    changed = results.map(str)
    assert changed["a"].value == "2"
    assert changed["b"].is_skipped
    assert "0 failed" in repr(changed)
