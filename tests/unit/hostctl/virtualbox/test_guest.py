"""The bridge's sessions of guest control, and a guest that refuses some as the real one did."""

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import pytest

from hostctl.backends.virtualbox.bridge import guest
from hostctl.backends.virtualbox.bridge.serve import Fault

IPRT_ERROR = 0x80BB0005
STARTED = 100
CONSTANTS = {
    "GuestSessionWaitForFlag": {"Start": 1},
    "GuestSessionStatus": {"Undefined": 0, "Started": STARTED},
}
BOX: Any = SimpleNamespace(
    api=SimpleNamespace(types=SimpleNamespace(constants=CONSTANTS.__getitem__))
)


class Refusal(Exception):
    """As XPCOM raises it."""

    errno = IPRT_ERROR


class Additions:
    """A guest whose sessions get the lowest free number, as VirtualBox gives them."""

    additionsRunLevel = 2
    sessions: tuple[()] = ()

    def __init__(self, refuse: Callable[[int], str]) -> None:
        self.refuse = refuse
        self.open: dict[int, Session] = {}
        self.begun: list[int] = []

    def createSession(self, *_: str) -> "Session":
        number = next(n for n in range(1, 33) if n not in self.open)
        self.begun.append(number)
        self.open[number] = Session(self, number)
        return self.open[number]


class Session:
    status = STARTED

    def __init__(self, owner: Additions, number: int) -> None:
        self.owner, self.number = owner, number

    def waitForArray(self, *_: object) -> None:
        if said := self.owner.refuse(self.number):
            raise Refusal(said)

    def close(self) -> None:
        del self.owner.open[self.number]


def opening(additions: Additions, within_s: float = 60) -> Generator[Any, None, Any]:
    console = SimpleNamespace(guest=SimpleNamespace(_i=additions, sessions=()))
    return guest._opened(BOX, SimpleNamespace(console=console), "root", "x", "", within_s)


def outcome(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_number_that_the_guest_is_not_done_with_is_left_alone() -> None:
    additions = Additions(lambda number: "VERR_DUPLICATE" if number < 3 else "")
    session = outcome(opening(additions))
    assert additions.begun == [1, 2, 3]
    assert list(additions.open.values()) == [session]


def test_numbers_do_not_run_out() -> None:
    additions = Additions(lambda number: "VERR_DUPLICATE" if len(additions.begun) < 50 else "")
    session = outcome(opening(additions))
    assert max(additions.begun) <= guest.HELD + 1
    assert list(additions.open.values()) == [session]


def test_a_guest_that_is_not_ready_is_asked_again_by_the_same_number() -> None:
    said = "The guest execution service is not ready (yet)"
    additions = Additions(lambda _: said if len(additions.begun) < 5 else "")
    outcome(opening(additions))
    assert additions.begun == [1] * 5


@pytest.mark.parametrize(
    ("said", "within_s", "kind"),
    [
        ("The specified user was not able to logon on guest", 60, "guest.login"),
        ("VERR_DUPLICATE", -1, "guest.silent"),
    ],
)
def test_nothing_is_left_open_where_it_fails(said: str, within_s: float, kind: str) -> None:
    additions = Additions(lambda _: said)
    with pytest.raises(Fault) as caught:
        outcome(opening(additions, within_s))
    assert caught.value.kind == kind
    assert additions.open == {}


def test_nothing_is_left_open_where_nobody_waits_any_more() -> None:
    additions = Additions(lambda _: "VERR_DUPLICATE")
    steps = opening(additions)
    for _ in range(5):
        next(steps)
    assert additions.open
    steps.close()
    assert additions.open == {}
