"""Events of a real machine: what hostctl does, from whichever process, and what nobody did."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hostctl.controller import Controller
from hostctl.journal import Event
from hostctl.machine import Machine

pytestmark = pytest.mark.vm


class Heard:
    """What a watcher of another process has heard so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    async def listen(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self.events.append(event)
            self._more.set()

    async def until(self, kind: str, limit_s: float = 30) -> Event:
        """Return the next event of a kind, and forget it with all before it."""
        async with asyncio.timeout(limit_s):
            while not any(event.kind == kind for event in self.events):
                self._more.clear()
                await self._more.wait()
        at = next(n for n, event in enumerate(self.events) if event.kind == kind)
        found, self.events = self.events[at], self.events[at + 1 :]
        return found


@asynccontextmanager
async def watched(controller: Controller, name: str, **how: object) -> AsyncIterator[Heard]:
    heard = Heard()
    async with Controller(controller.home) as other:
        events = other.events(name, **how)  # type: ignore[arg-type]  # a shorthand
        listening = asyncio.create_task(heard.listen(events))
        await asyncio.sleep(0.3)
        yield heard
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_job_that_ends_is_told_though_much_else_happens(
    machine: Machine, controller: Controller
) -> None:
    async with watched(controller, machine.name, heartbeat_s=0.5) as heard:
        await heard.until("agent-up")
        await machine.pause()
        await machine.pause()  # done already: nothing happens
        await machine.resume()
        await machine.put(b"data", "/tmp/file")
        job = await machine.spawn("sh", "-c", "exit 3")
        await machine.save_snapshot("e")
        await machine.restore_snapshot("e")
        await machine.delete_snapshot("e")
        ended = await heard.until("job-ended")
        assert ended.detail == {"job": job.id, "end": "exit status 3"}


async def test_the_order_is_that_of_the_acts(machine: Machine, controller: Controller) -> None:
    async with watched(controller, machine.name, heartbeat_s=None) as heard:
        await machine.pause()
        await machine.resume()
        await machine.save_snapshot("e")
        await machine.restore_snapshot("e")
        await machine.delete_snapshot("e")
        await heard.until("snapshot-deleted")
        assert not heard.events
        await machine.stop(force=True)
        assert (await heard.until("stopped")).detail == {"force": True}


async def test_what_nobody_did_is_found(machine: Machine, controller: Controller) -> None:
    async with watched(controller, machine.name, heartbeat_s=0.5, every_beat=True) as heard:
        assert (await heard.until("agent-up")).detail["ping_s"] > 0
        await heard.until("alive")
        pid = (await machine._backend.describe()).pid
        assert pid
        os.kill(pid, signal.SIGSTOP)  # an agent that is silent, in a machine that runs
        down = await heard.until("agent-down")
        assert down.detail["reason"]
        os.kill(pid, signal.SIGCONT)
        await heard.until("agent-up")
        os.kill(pid, signal.SIGKILL)
        crashed = await heard.until("crashed")
        assert crashed.detail == {"found": True}


async def test_silence_of_a_paused_machine_is_no_death(
    machine: Machine, controller: Controller
) -> None:
    async with watched(controller, machine.name, heartbeat_s=0.3) as heard:
        await heard.until("agent-up")
        await machine.pause()
        await asyncio.sleep(2)
        await machine.resume()
        await heard.until("resumed")
        assert "agent-down" not in [event.kind for event in heard.events]


async def test_use_is_told_from_both_sides(machine: Machine) -> None:
    use = await machine.stats()
    assert use.host
    assert use.host.cpu_s > 0
    assert use.host.resident_bytes > 20 << 20
    assert use.guest
    assert use.guest.memory_bytes is not None
    assert 100 << 20 < use.guest.memory_bytes < 256 << 20
    assert use.guest.uptime_s
    assert use.disk_read_bytes is not None
    await machine.shell("dd if=/dev/zero of=/dev/vda bs=1M count=2; sync", check=True)
    after = await machine.stats()
    assert after.disk_written_bytes is not None
    assert use.disk_written_bytes is not None
    assert after.disk_written_bytes - use.disk_written_bytes >= 2 << 20


async def test_stats_count_the_bytes_of_the_ports(machine: Machine) -> None:
    before = (await machine.stats()).guest
    await machine.put(bytes(3 << 20), "/tmp/zeros")
    await machine.get("/tmp/zeros", io.BytesIO())
    after = (await machine.stats()).guest
    assert before
    assert after
    for name in ("port_read_bytes", "port_written_bytes"):
        assert 3 << 20 <= getattr(after, name) - getattr(before, name) < 4 << 20
