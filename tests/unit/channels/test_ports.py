"""Leases of ports: how one is taken over from somebody who left in the middle of something."""

from pathlib import Path

import pytest

from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.ports import GUEST_CONTROL, SERIAL, STREAM, WORK, PortPool


class Line:
    """An endpoint, and its link; tells what happened to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def open(self) -> Link:
        self.seen.append("open")
        return self

    async def send(self, data: Buffer) -> None:
        raise NotImplementedError

    async def receive_into(self, buffer: bytearray) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.seen.append("close")


@pytest.mark.parametrize("name", [WORK[0], STREAM[3]])
async def test_a_port_left_in_the_middle_is_hung_up_on_once_more(name: str, tmp_path: Path) -> None:
    line = Line()
    pool = PortPool({name: line}, tmp_path)
    (await pool.lease([name], 1)).release(clean=False)
    lease = await pool.lease([name], 1)
    assert lease.dirty
    assert line.seen == ["open", "close", "open", "close", "open"]
    lease.release(clean=True)
    assert not (await pool.lease([name], 1)).dirty
    assert line.seen[5:] == ["close", "open"]


@pytest.mark.parametrize("name", [SERIAL, GUEST_CONTROL])
async def test_a_line_that_is_no_port_is_not(name: str, tmp_path: Path) -> None:
    line = Line()
    pool = PortPool({name: line}, tmp_path)
    (await pool.lease([name], 1)).release(clean=False)
    assert (await pool.lease([name], 1)).dirty
    assert line.seen == ["open", "close", "open"]
