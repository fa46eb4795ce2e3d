"""The event thread's one trap: Python frees connections whenever it likes."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from hostctl.backends.libvirt.eventloop import EventThread

pytestmark = pytest.mark.timeout(10)


class Freed:
    """What libvirt's objects do when they are freed: they take their handle back."""

    def __init__(self, thread: EventThread, number: int) -> None:
        self.thread, self.number = thread, number
        self.me = self  # only the garbage collector frees it

    def __del__(self) -> None:
        self.thread._remove_handle(self.number)


@pytest.fixture
def eager() -> Iterator[None]:
    """Collect garbage at nearly every allocation."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager")
def test_a_connection_freed_inside_our_own_calls_does_not_deadlock() -> None:
    thread, opaque = EventThread(None), object()
    calls: Any = lambda *_: None  # noqa: E731
    for _ in range(200):
        Freed(thread, thread._add_handle(0, 1, calls, opaque))
        number = thread._add_handle(0, 1, calls, opaque)
        thread._update_handle(number, 2)
        thread._remove_handle(number)
        thread._add_timer(-1, calls, opaque)
    gc.collect()
    assert thread._handles == {}
