"""Clones that wait: hidden until they are taken, taken once, and made again, whatever is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from hostctl.controller import Controller
from hostctl.errors import HookFailed, MemoryShort, PoolNotFound, TemplateInUse
from hostctl.lifecycle import MachineState
from hostctl.state import Home
from tests.homes import emptied, environment

pytestmark = pytest.mark.vm


@pytest.fixture
async def controller(template_home: Home) -> AsyncIterator[Controller]:
    async with emptied(template_home) as controller:
        yield controller
        for pool in await controller.pools():
            await controller.delete_pool(pool.template)
    assert not list(template_home.machines.iterdir())


async def filled(controller: Controller, size: int) -> None:
    """Wait for the process that fills the pool."""
    async with asyncio.timeout(60):
        while (await controller.pools())[0].ready < size:  # noqa: ASYNC110 other processes fill it
            await asyncio.sleep(0.1)


async def hostctl(home: Home, *words: str) -> str:
    argv = [sys.executable, "-m", "hostctl", *words]
    done = await asyncio.to_thread(
        subprocess.run, argv, env=environment(home), check=True, capture_output=True, text=True
    )
    return done.stdout


async def test_what_waits_is_hidden_until_it_is_taken_and_is_made_again(
    controller: Controller,
) -> None:
    home = controller.home
    pool = await controller.create_pool("base", 2)
    assert (pool.ready, pool.size) == (2, 2)
    waiting = home.waiting()
    assert (controller.machines(), home.names(), len(waiting)) == ((), (), 2)
    states = {await controller.machine(name).state() for name in waiting}
    assert states == {MachineState.PAUSED, MachineState.RUNNING}
    with pytest.raises(TemplateInUse, match="its pool"):
        await controller.delete_template("base")
    taken = await asyncio.gather(controller.take("base"), controller.take("base"))
    assert sorted(machine.name for machine in taken) == sorted(waiting)
    for machine in taken:
        now = int((await machine.exec("date", "+%s")).stdout)
        assert abs(time.time() - now) < 3
        assert await machine.read("/tmp/warm") == b"warm\n"
    draws = [(await each.exec("head", "-c16", "/dev/urandom")).stdout for each in taken]
    assert len(set(draws)) == 2
    await filled(controller, 2)
    (listed,) = json.loads(await hostctl(home, "pool", "list", "--json"))
    assert listed == {
        "template": "base",
        "size": 2,
        "ready": 2,
        "overcommit": False,
        "note": "",
    }
    assert await hostctl(home, "run", "base", "--", "cat", "/tmp/warm") == "warm\n"
    assert len(controller.machines()) == 2


async def test_more_are_taken_than_wait(controller: Controller) -> None:
    await controller.create_pool("base", 1)
    (waiting,) = controller.home.waiting()
    taken = await asyncio.gather(*(controller.take("base") for _ in range(3)))
    names = {machine.name for machine in taken}
    assert (len(names), waiting in names) == (3, True)
    for machine in taken:
        await machine.exec("true", check=True)
    with pytest.raises(HookFailed):
        await controller.take("base", on_clone="exit 1")
    assert {machine.name for machine in controller.machines()} == names


async def test_a_pool_has_its_size_and_nothing_broken(controller: Controller) -> None:
    home = controller.home
    await controller.create_pool("base", 3)
    dead, broken, _ = home.waiting()
    os.kill(int(home.files(dead).pid.read_text()), signal.SIGKILL)
    home.files(broken).waiting.write_bytes(b"")  # as a filler leaves it that is killed
    async with asyncio.timeout(10):
        while (pool := (await controller.pools())[0]).ready > 1:  # noqa: ASYNC110 a process ends
            await asyncio.sleep(0.05)
    await controller.fill_pool("base")
    pool = (await controller.pools())[0]
    assert (pool.ready, pool.note, len(home.waiting())) == (3, "", 3)
    assert not {dead, broken} & set(home.waiting())
    await controller.create_pool("base", 1)
    assert len(home.waiting()) == 1


async def test_one_that_is_being_taken_is_not_removed(controller: Controller) -> None:
    await controller.create_pool("base", 1)
    (name,) = controller.home.waiting()
    machine = controller.machine(name)
    async with machine.lock.held("hand out"):
        removing = asyncio.ensure_future(controller.delete_pool("base"))
        await asyncio.sleep(0.1)
        controller.home.files(name).waiting.unlink()
    await removing
    await machine.resume()
    await machine.exec("true", check=True)


async def test_a_taken_clone_goes_with_its_owner(controller: Controller) -> None:
    await controller.create_pool("base", 1)
    owner = subprocess.Popen(["sleep", "600"])
    try:
        await controller.take("base", owner_pid=owner.pid)
        await controller.sweep_throwaways()
        assert len(controller.machines()) == 1
    finally:
        owner.kill()
        owner.wait()
    await controller.sweep_throwaways()
    assert controller.machines() == ()
    await filled(controller, 1)


async def test_an_unfit_template_hands_out_nothing_and_is_made_anew(
    controller: Controller,
) -> None:
    await controller.create_pool("base", 1)
    (old,) = controller.home.waiting()
    state = controller.home.templates / "base" / "state"
    state.write_bytes(state.read_bytes()[:-1])
    taken = await controller.take("base")
    assert taken.name != old
    await taken.exec("true", check=True)
    await filled(controller, 1)


async def test_a_pool_needs_memory_and_its_name(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostctl.memory.available_bytes", lambda: 1 << 30)
    with pytest.raises(MemoryShort, match="20 clones"):
        await controller.create_pool("base", 20)
    assert (await controller.pools(), controller.home.waiting()) == ((), ())
    with pytest.raises(PoolNotFound):
        await controller.delete_pool("base")
