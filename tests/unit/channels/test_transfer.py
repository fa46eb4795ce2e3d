"""A put that is given up in the middle leaves no task behind."""

import asyncio
from typing import cast

import pytest

from hostctl_channels.errors import ChannelReset
from hostctl_channels.port import Port
from hostctl_channels.transfer import _sent
from hostctl_channels.wire import Done, Event


class StuckLink:
    """Never takes a byte."""

    def __init__(self) -> None:
        self.sending: asyncio.Task[None] | None = None

    async def send(self, _: bytes) -> None:
        self.sending = cast("asyncio.Task[None]", asyncio.current_task())
        await asyncio.Event().wait()


class StuckPort:
    """A port whose guest reads nothing."""

    def __init__(self) -> None:
        self.lease = self
        self.link = StuckLink()


async def test_a_cancelled_sender_is_ended() -> None:
    port, answer = StuckPort(), asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await _sent(cast(Port, port), b"x", answer, spare=True)
    assert port.link.sending is not None
    assert port.link.sending.done()


@pytest.mark.parametrize("spare", [True, False])
async def test_a_broken_line_ends_the_sender_at_once(spare: bool) -> None:
    port = StuckPort()
    answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    answer.set_exception(ChannelReset("gone"))
    assert not await _sent(cast(Port, port), b"x", answer, spare=spare)
    assert isinstance(answer.exception(), ChannelReset)


async def test_an_early_answer_spares_the_rest() -> None:
    answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    answer.set_result(Done())
    assert not await _sent(cast(Port, StuckPort()), b"x", answer, spare=True)
