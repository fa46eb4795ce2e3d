"""What goes ahead of a greeting on a serial line, after which end of a conversation."""

import pytest

from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.serial_agent import Dialer

ALL = 57_000  # more than the largest piece, which an agent may still be waiting for


class Line:
    """An endpoint, and its link; counts what is sent."""

    def __init__(self) -> None:
        self.sent = 0

    async def open(self) -> Link:
        return self

    async def send(self, data: Buffer) -> None:
        self.sent += len(bytes(data))

    async def receive_into(self, buffer: bytearray) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def dialer(line: Line) -> Dialer:
    return Dialer(line)


async def _sent(dialer: Dialer, line: Line, tries: int) -> list[int]:
    sizes = []
    for _ in range(tries):
        line.sent = 0
        await dialer.open()
        sizes.append(line.sent)
    return sizes


async def test_a_silent_line_is_filled_little_by_little(dialer: Dialer, line: Line) -> None:
    """A guest that is only slow must not be flooded."""
    first, second, third, fourth, fifth, sixth = await _sent(dialer, line, 6)
    assert first == third == fifth == 0
    assert second <= 1024 < fourth <= 8192
    assert sixth > ALL


async def test_after_a_break_in_a_body_all_of_it_may_be_wanted(dialer: Dialer, line: Line) -> None:
    dialer.upset(in_body=True)
    assert (await _sent(dialer, line, 1))[0] > ALL
    dialer.settle()
    assert await _sent(dialer, line, 1) == [0]


async def test_after_a_break_without_a_body_a_little_may(dialer: Dialer, line: Line) -> None:
    dialer.upset(in_body=False)
    dialer.distrust()  # it is our own break that makes the port dirty
    assert await _sent(dialer, line, 1) == [1024]


async def test_somebody_elses_break_may_be_in_a_body(dialer: Dialer, line: Line) -> None:
    dialer.settle()
    dialer.distrust()
    assert (await _sent(dialer, line, 1))[0] > ALL
