"""Leases of ports: how one is taken over from somebody who left in the middle of something."""

import errno
from pathlib import Path

import pytest

from hostctl_channels import ports
from hostctl_channels.errors import ChannelClosed
from hostctl_channels.interface import Buffer
from hostctl_channels.links.interface import Link
from hostctl_channels.ports import GUEST_CONTROL, SERIAL, STREAM, WORK, PortPool, mark_restored


class Line:
    """An endpoint, and its link; tells what happened to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_dead = False

    async def open(self) -> Link:
        if self.is_dead:
            raise ChannelClosed("dead")
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


async def test_a_restore_is_noted_where_nobody_holds_a_port(tmp_path: Path) -> None:
    pool = PortPool({name: Line() for name in WORK}, tmp_path)
    held = await pool.lease(WORK, 1)
    (await pool.lease(WORK, 1)).release(clean=False)
    mark_restored(tmp_path)
    held.release(clean=True)
    leases = [await pool.lease(WORK, 1) for _ in WORK]
    assert [lease.is_restored for lease in leases] == [False, False, True, True]
    assert [lease.dirty for lease in leases] == [False, True, False, False]
    leases[2].release(clean=True)
    assert not (await pool.lease(WORK, 1)).is_restored


async def test_a_full_disk_costs_a_mark_and_no_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, note: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(ports, "_write", full)
        mark_restored(tmp_path)
        with pytest.raises(OSError, match="full"):
            await PortPool({WORK[0]: Line()}, tmp_path).lease(WORK, 1)
    lease = await PortPool({WORK[0]: Line()}, tmp_path).lease(WORK, 1)  # nobody kept its lock
    assert not lease.is_restored


async def test_a_line_that_is_dead_keeps_its_note(tmp_path: Path) -> None:
    line = Line()
    pool = PortPool({WORK[0]: line}, tmp_path)
    (await pool.lease(WORK, 1)).release(clean=False)
    line.is_dead = True
    with pytest.raises(ChannelClosed):
        await pool.lease(WORK, 1)
    line.is_dead = False
    assert (await pool.lease(WORK, 1)).dirty


@pytest.mark.parametrize("name", [SERIAL, GUEST_CONTROL])
async def test_a_line_that_is_no_port_is_not(name: str, tmp_path: Path) -> None:
    line = Line()
    pool = PortPool({name: line}, tmp_path)
    (await pool.lease([name], 1)).release(clean=False)
    assert (await pool.lease([name], 1)).dirty
    assert line.seen == ["open", "close", "open"]
