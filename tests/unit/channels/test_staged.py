"""What a staged channel asks of its foothold, and what it leaves unasked."""

import pytest

from hostctl_channels.interface import Capability, Command, ExitStatus
from hostctl_channels.staged import StagedChannel


class Recorder:
    """A foothold whose commands print five bytes each, and which notes what is asked of it."""

    piece_bytes = slice_bytes = 8192
    folder = b"/tmp/f"
    is_warm = False
    capabilities: frozenset[Capability] = frozenset()
    note = b"5 0\nfive\n"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def open(self, timeout_s: float) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def store(self, path: bytes, data: bytes) -> None:
        self.asked.append("store " + path[7:8].decode())

    async def fetch(self, path: bytes) -> bytes:
        self.asked.append("fetch " + path[7:8].decode())
        return self.note if path[7:8] == b"n" else b"five\n"

    async def call(
        self, path: bytes, *words: bytes, timeout_s: float | None = None, usage: bool = False
    ) -> ExitStatus:
        self.asked.append("call " + path[7:8].decode())
        return ExitStatus(3)

    async def close(self) -> None:
        pass


@pytest.fixture
def foothold() -> Recorder:
    return Recorder()


async def test_output_is_asked_for_after_the_exit(foothold: Recorder) -> None:
    channel = StagedChannel(foothold)
    result = await channel.exec(Command.of("x"))
    assert (result.exit.code, result.stdout) == (3, b"five\n")
    assert foothold.asked == ["store r", "call r", "store s", "call s", "fetch n"]
    foothold.asked.clear()
    await channel.exec(Command.of("x"))
    assert foothold.asked == ["store r", "call r", "call s", "fetch n"]


async def test_much_output_is_fetched_by_itself(foothold: Recorder) -> None:
    foothold.note = b"5000 0\n"
    result = await StagedChannel(foothold).exec(Command.of("x"))
    assert result.stdout == b"five\n"
    assert foothold.asked[-2:] == ["fetch n", "fetch o"]


async def test_with_a_limit_of_nothing_the_exit_is_the_last_word(foothold: Recorder) -> None:
    """A command that ends the agent it came by has nobody left to answer for its output."""
    result = await StagedChannel(foothold).exec(Command.of("x"), max_output_bytes=0)
    assert (result.exit.code, result.stdout) == (3, b"")
    assert foothold.asked == ["store r", "call r"]
