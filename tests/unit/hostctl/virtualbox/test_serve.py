"""The bridge's loop, in a thread of this process, on pipes."""

import os
import threading
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any

import pytest

from hostctl.backends.virtualbox.bridge.serve import Fault, Operation, Reply, Server
from hostctl.backends.virtualbox.bridge.wire import (
    Answer,
    Cancel,
    Decoder,
    Failure,
    Message,
    Request,
    encode,
)


class Served:
    """A server with operations, and our end of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # It is no process of its own here: it must not end ours.
        monkeypatch.setattr("hostctl.backends.virtualbox.bridge.serve.ORPHAN_S", 1e6)
        theirs, self.ours = os.pipe()
        self.heard, out = os.pipe()
        self.closed: list[str] = []
        operations: dict[str, Operation] = {
            "add": self.add,
            "echo": self.echo,
            "fail": self.fail,
            "count": self.count,
        }
        server = Server(theirs, out, operations, self.explain)
        self.thread = threading.Thread(target=server.serve, args=("box",))
        self.thread.start()
        self.decoder = Decoder()
        self.inbox: list[Message] = []

    def __enter__(self) -> "Served":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.ours)
        self.thread.join(5)
        assert not self.thread.is_alive()

    def say(self, message: Message) -> None:
        os.write(self.ours, encode(message))

    def hear(self) -> Message:
        while not self.inbox:
            self.inbox += self.decoder.feed(os.read(self.heard, 65536))
        return self.inbox.pop(0)

    @staticmethod
    def add(box: Any, *, one: int, two: int) -> int:
        assert box == "box"
        return one + two

    @staticmethod
    def echo(_box: Any, *, body: bytes) -> Reply:
        return Reply(len(body), body)

    @staticmethod
    def fail(_box: Any, *, how: str) -> None:
        raise Fault("vbox", "busy", 0x80BB0007) if how == "told" else RuntimeError(how)

    @staticmethod
    def explain(error: BaseException) -> Fault | None:
        return Fault("vbox", "explained", 1) if str(error) == "known" else None

    def count(self, _box: Any, *, to: int) -> Generator[Any, None, str]:
        try:
            for number in range(to):
                yield Reply(number)
                yield 0.001
            return "done"
        finally:
            self.closed.append("count")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served(monkeypatch) as served:
        yield served


def test_a_request_is_answered_by_its_id(served: Served) -> None:
    served.say(Request(7, "add", {"one": 1, "two": 2}))
    assert served.hear() == Answer(7, 3)


def test_bytes_go_both_ways(served: Served) -> None:
    served.say(Request(1, "echo", {}, b"\0\n\xff"))
    assert served.hear() == Answer(1, 3, b"\0\n\xff")


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [("told", "vbox", "busy"), ("known", "vbox", "explained"), ("oops", "bug", "RuntimeError")],
)
def test_a_failure_says_of_which_kind_it_is(served: Served, how: str, kind: str, text: str) -> None:
    served.say(Request(1, "fail", {"how": how}))
    said = served.hear()
    assert isinstance(said, Failure)
    assert said.kind == kind
    assert text in said.text


def test_an_operation_that_is_not_there_or_called_wrongly_is_a_bug(served: Served) -> None:
    for request in (Request(1, "nope", {}), Request(2, "add", {"three": 3})):
        served.say(request)
        said = served.hear()
        assert isinstance(said, Failure)
        assert said.kind == "bug"


def test_one_that_waits_lets_others_through(served: Served) -> None:
    served.say(Request(1, "count", {"to": 1000}))
    assert served.hear() == Answer(1, 0, more=True)
    served.say(Request(2, "add", {"one": 1, "two": 1}))
    while (said := served.hear()) != Answer(2, 2):
        assert isinstance(said, Answer)
        assert said.id == 1
    served.say(Cancel(1))
    while not isinstance(served.hear(), Failure):
        pass
    assert served.closed == ["count"]


def test_pieces_come_in_order_and_then_the_result(served: Served) -> None:
    served.say(Request(1, "count", {"to": 2}))
    assert [served.hear() for _ in range(3)] == [
        Answer(1, 0, more=True),
        Answer(1, 1, more=True),
        Answer(1, "done"),
    ]
    served.say(Cancel(1))  # too late, and of no consequence
    served.say(Request(2, "add", {"one": 0, "two": 0}))
    assert served.hear() == Answer(2, 0)


def test_what_waits_is_closed_when_the_client_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with Served(monkeypatch) as served:
        served.say(Request(1, "count", {"to": 10**6}))
        served.hear()
    assert served.closed == ["count"]
