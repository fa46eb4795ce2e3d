"""Which line is taken, and when the others are asked at all."""

import asyncio
from pathlib import Path

import pytest

from hostctl import connect
from hostctl.cli import arguments
from hostctl.connect import BestChannel, Line, open_channel
from hostctl.errors import ConfigError
from hostctl_channels.errors import ChannelClosed, ChannelReset, ChannelTimeout
from hostctl_channels.interface import Channel
from hostctl_channels.links.interface import Endpoint
from hostctl_channels.links.stream import UnixEndpoint
from tests.twin import StillPulse

PORTS: dict[str, Endpoint] = {n: UnixEndpoint(Path("/", n)) for n in ("first", "second")}


class FakeLine:
    """A line that answers after a while, or fails; notes what it is asked."""

    def __init__(self, answers_s: float | None = 0.0, error: Exception | None = None) -> None:
        self.answers_s = answers_s
        self.error = error
        self.calls: list[str] = []
        self.is_warm = False
        self.capabilities: frozenset[str] = frozenset()

    async def connect(self, timeout_s: float) -> None:
        self.calls.append("connect")
        if self.error is not None:
            raise self.error
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(1000 if self.answers_s is None else self.answers_s)
        except TimeoutError:
            raise ChannelTimeout("no answer") from None

    async def ping(self) -> float:
        self.calls.append("ping")
        if self.error is not None:
            raise self.error
        return 1.0

    async def close(self) -> None:
        self.calls.append("close")


class Bench:
    """Two lines, the second asked 20 ms after the first."""

    def __init__(self, memory: Path) -> None:
        self.first, self.second = FakeLine(), FakeLine()
        self.memory = memory
        self.pulse = StillPulse()

    def lines(self) -> tuple[Line, ...]:
        def opener(line: FakeLine) -> "object":
            return lambda site: line

        return (
            Line("agent", "first line", 0.0, "first", opener(self.first)),  # type: ignore[arg-type]
            Line("qga", "second line", 0.02, "second", opener(self.second)),  # type: ignore[arg-type]
        )

    def channel(self, only: str = "auto", ports: dict[str, Endpoint] = PORTS) -> BestChannel:
        return open_channel(ports, Path("/locks"), self.pulse, self.memory, only)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path / "channel")
    monkeypatch.setattr(connect, "LINES", bench.lines())
    monkeypatch.setattr(connect, "GRACE_S", 0.1)
    monkeypatch.setattr(connect, "KNOWN_GRACE_S", 0.02)
    return bench


async def test_the_best_one_answers_and_nobody_else_is_asked(bench: Bench) -> None:
    channel = bench.channel()
    await channel.ping()
    assert channel.line is not None
    assert (channel.line.key, channel.reason) == ("agent", "")
    assert bench.second.calls == []
    await bench.channel().ping()  # the next process does not even connect first
    assert bench.first.calls == ["connect", "ping", "ping"]


async def test_another_is_taken_when_the_best_is_silent_and_remembered(bench: Bench) -> None:
    bench.first.answers_s = None
    channel = bench.channel()
    await channel.ping()
    assert channel.line is not None
    assert (channel.line.key, channel.reason) == ("qga", "first line: no answer in time")
    bench.first.calls.clear()
    again = bench.channel()
    await again.ping()
    assert bench.first.calls == []
    assert again.reason == "first line: no answer in time"


async def test_a_better_one_that_is_a_little_late_is_waited_for(bench: Bench) -> None:
    bench.first.answers_s = 0.08
    channel = bench.channel()
    await channel.connect(5)
    assert channel.line is not None
    assert channel.line.key == "agent"
    assert bench.second.calls == ["connect", "close"]


async def test_a_new_timeline_asks_all_again_the_known_one_at_once(bench: Bench) -> None:
    bench.first.answers_s = None
    await bench.channel().ping()
    bench.pulse.now += 1
    bench.first.answers_s = 0.0
    channel = bench.channel()
    await channel.ping()
    assert channel.line is not None
    assert channel.line.key == "agent"


async def test_a_line_that_failed_is_told_why(bench: Bench) -> None:
    bench.first.error = ChannelClosed("nobody listens")
    channel = bench.channel()
    await channel.ping()
    assert channel.reason == "first line: nobody listens"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ChannelClosed("gone"), ChannelTimeout),
        (ChannelReset("cut"), ChannelReset),
    ],
)
async def test_none_answers(bench: Bench, error: Exception, kind: type[Exception]) -> None:
    bench.first.error, bench.second.answers_s = error, None
    with pytest.raises(kind, match=f"first line: {error}; second line: no answer"):
        await bench.channel().connect(0.2)


async def test_all_closed_is_closed(bench: Bench) -> None:
    bench.first.error = bench.second.error = ChannelClosed("gone")
    with pytest.raises(ChannelClosed, match="no channel answers"):
        await bench.channel().connect(0.2)


async def test_silence_makes_the_next_request_choose_anew(bench: Bench) -> None:
    channel = bench.channel()
    await channel.ping()
    bench.first.error = ChannelTimeout("silent")
    with pytest.raises(ChannelTimeout):
        await channel.ping()
    assert channel.line is None
    await channel.ping()
    assert channel.line is not None
    assert channel.line.key == "qga"


async def test_a_forced_one_is_the_only_one_and_not_remembered(bench: Bench) -> None:
    channel = bench.channel("qga")
    await channel.ping()
    assert (bench.first.calls, channel.reason) == ([], "as told")
    assert not bench.memory.exists()
    with pytest.raises(ChannelClosed, match="no line for: second line"):
        await bench.channel("qga", {"first": UnixEndpoint(Path("/1"))}).ping()
    with pytest.raises(ConfigError, match="no channel 'fax'"):
        await bench.channel("fax").ping()


def test_the_command_line_offers_every_line() -> None:
    assert (connect.AUTO, *(line.key for line in connect.LINES)) == arguments.CHANNELS


async def test_a_single_line_is_not_raced(bench: Bench) -> None:
    await bench.channel(ports={"second": UnixEndpoint(Path("/2"))}).ping()
    assert bench.second.calls == ["ping"]


async def test_a_damaged_memory_is_none(bench: Bench) -> None:
    bench.memory.write_text("qga")
    await bench.channel().ping()
    assert bench.memory.read_text().startswith("agent 1 ")


async def test_tasks_choose_once(bench: Bench) -> None:
    channel: Channel = bench.channel()
    await asyncio.gather(*(channel.ping() for _ in range(5)))
    assert bench.first.calls.count("connect") == 1


async def test_a_bug_is_no_silence(bench: Bench) -> None:
    bench.first.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        await bench.channel().connect(1)
