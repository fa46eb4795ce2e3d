"""The loop thread: where the asynchronous API runs for those that call and wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")
U = TypeVar("U")


class LoopThread:
    """An event loop that runs in a thread of its own, so that it also runs between calls."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="hostctl-loop", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        self.is_closed = False

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result; what interrupts the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, values: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an asynchronous iterator yields; leaving this one ends that one."""

        async def following() -> T | None:
            return await anext(values, None)

        try:
            while (value := self.call(following())) is not None:
                yield value
        finally:
            if isinstance(values, AsyncGenerator) and not self.is_closed:
                self.call(_closed(values))

    @contextlib.contextmanager
    def held(self, context: AbstractAsyncContextManager[T], wrap: Callable[[T], U]) -> Iterator[U]:
        """Keep an async context open for as long as this one lasts.

        One task enters and leaves it: task groups and timeouts insist on that.
        """
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with context as value:
                entered.set_result(value)
                await leave.wait()

        holding = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        holding.add_done_callback(lambda ended: _pass_on(ended, entered))
        try:
            yield wrap(entered.result())
        finally:
            self._loop.call_soon_threadsafe(leave.set)
            if entered.done() and entered.exception() is None:
                holding.result()
            else:
                holding.cancel()

    def close(self) -> None:
        """Cancel what still runs, and end the thread. Safe to call twice."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with self._runner:  # cancels and awaits left-over tasks when it ends
            self._runner.run(self._until_stopped(started))

    async def _until_stopped(
        self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]
    ) -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


def _pass_on(ended: concurrent.futures.Future[None], entered: concurrent.futures.Future[T]) -> None:
    """Tell whoever waits for the context to open that it never will."""
    if entered.done():
        return
    if ended.cancelled():
        entered.cancel()
    else:
        error = ended.exception()
        assert error is not None
        entered.set_exception(error)


async def _closed(values: AsyncGenerator[Any, None]) -> None:
    await values.aclose()
