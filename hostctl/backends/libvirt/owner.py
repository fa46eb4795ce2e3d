"""One thread that owns what blocks: calls are made in it, one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Owner"]

T = TypeVar("T")


class Owner:
    """A daemon thread with a queue.

    Not an executor of the standard library: Python waits for those when it ends, and a call to a
    hung libvirtd would keep us alive for ever.
    """

    def __init__(self, name: str) -> None:
        self._orders: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._orders = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue `work`; the future has its result. A cancelled one that waits is never begun."""
        future: Future[T] = Future()
        self._orders.put((future, work))
        return future

    def close(self) -> None:
        """End the thread after what is queued. Safe to call twice."""
        self._orders.put(None)

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            future, work = order
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as err:
                future.set_exception(err)
            else:
                future.set_result(result)
            del order, future, work  # or the last result lives until the next call
