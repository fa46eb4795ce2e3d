"""What goes ahead of a greeting on a serial line, after which end of a conversation."""

from pathlib import Path

import pytest

from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.serial_agent import Dialer


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
def dialer(line: Line, tmp_path: Path) -> Dialer:
    return Dialer(line, tmp_path / "note")


async def _sent(dialer: Dialer, line: Line, tries: int) -> list[int]:
    sizes = []
    for _ in range(tries):
        line.sent = 0
        await dialer.open()
        sizes.append(line.sent)
    return sizes


async def _break_in_a_body(dialer: Dialer) -> None:
    link = await dialer.open()
    dialer.begin(50_000)
    await link.send(b"P ...")
    dialer.upset()


async def test_a_silent_line_is_never_flooded(dialer: Dialer, line: Line) -> None:
    """Its guest may only boot, or be slow."""
    assert await _sent(dialer, line, 6) == [0, 1024, 0, 8192, 0, 1024]


async def test_after_a_break_a_little_may_be_wanted(dialer: Dialer, line: Line) -> None:
    dialer.upset()
    assert await _sent(dialer, line, 1) == [1024]
    dialer.settle()
    assert await _sent(dialer, line, 1) == [0]


async def test_after_a_break_in_a_body_all_of_it_may_be_wanted(dialer: Dialer, line: Line) -> None:
    await _break_in_a_body(dialer)
    first, second = await _sent(dialer, line, 2)
    assert first == 51_024
    assert second == 0


async def test_a_body_that_arrived_is_not_filled_up(dialer: Dialer, line: Line) -> None:
    link = await dialer.open()
    dialer.begin(50_000)
    await link.send(b"P ...")
    dialer.settle()
    assert await _sent(dialer, line, 1) == [0]


async def test_a_body_that_never_had_the_line_says_nothing_of_it(
    dialer: Dialer, line: Line, tmp_path: Path
) -> None:
    """Somebody else has it, whose note it is."""
    (tmp_path / "note").write_text("300\n")
    dialer.begin(50_000)
    dialer.upset()
    dialer.settle()
    assert (tmp_path / "note").read_text() == "300\n"


@pytest.mark.parametrize(("note", "most"), [("300\n", 1324), ("", 60_000), ("-1", 60_000)])
async def test_whoever_follows_a_killed_sender_fills_its_body_up(
    line: Line, tmp_path: Path, note: str, most: int
) -> None:
    (tmp_path / "note").write_text(note)
    assert 1024 < (await _sent(Dialer(line, tmp_path / "note"), line, 1))[0] <= most
    assert not (tmp_path / "note").exists()
