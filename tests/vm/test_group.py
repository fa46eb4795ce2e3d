"""Two real machines told the same thing: from the library, and from processes that die."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.group import Group
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home
from tests.homes import environment

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

RUN = "import sys; sys.argv[0] = 'hostctl'; from hostctl.cli.main import main; sys.exit(main())"


@pytest.fixture
async def pair(controller: Controller, machine: Machine) -> AsyncIterator[Group]:
    """The machine of all tests, and a second one, that lives for one test."""
    second = await controller.create(MachineSpec(f"{machine.name}-b", image="tiny"), tags=["pair"])
    await machine.change_tags(add=["pair"])
    try:
        await second.start()
        yield controller.select("@pair")
    finally:
        await second.delete(force=True)
        await machine.change_tags(remove=["pair"])


def hostctl(home: Home, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(home: Home, *words: str) -> tuple[int, str, str]:
    with hostctl(home, *words) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


async def test_two_machines_are_one_group(pair: Group, home: Home) -> None:
    first, second = pair.names

    # Each is another world.
    await pair.each(lambda machine: machine.put(machine.name.encode(), "/tmp/me"))
    told = (await pair.exec("cat", "/tmp/me", check=True)).check()
    assert {name: each.value.stdout.decode() for name, each in told.items()} == {
        first: first,
        second: second,
    }
    data = os.urandom(2_000_000)
    (await pair.put(data, "/tmp/same", verify="sha256")).check()
    assert {each.value for each in (await pair.read("/tmp/same")).values()} == {data}

    # Started by a process that is killed, found by another.
    with hostctl(home, "exec", "-d", "--shell", "@pair", "sleep 2; cat /tmp/me; exit 3") as starter:
        assert starter.stdout is not None
        ids = {starter.stdout.readline().decode().strip() for _ in pair}
        starter.send_signal(signal.SIGKILL)
    assert {id.partition("/")[0] for id in ids} == {first, second}
    code, out, _ = await asyncio.to_thread(run, home, "wait", "--json", "@pair/*")
    *ends, summary = map(json.loads, out.splitlines())
    assert code == 3
    assert {end["job"] for end in ends} == ids
    assert summary["failed"] == 2
    code, out, _ = await asyncio.to_thread(run, home, "logs", "@pair/*")
    assert sorted(out.splitlines()) == sorted(f"{id}: {id.partition('/')[0]}" for id in ids)
    assert (await asyncio.to_thread(run, home, "forget", "@pair/*"))[0] == 0

    # A killed exec leaves no command in either.
    with hostctl(home, "exec", "@pair", "--", "sh", "-c", "echo on; sleep 773") as running:
        assert running.stdout is not None
        said = {running.stdout.readline() for _ in pair}
        assert said == {f"{name}: on\n".encode() for name in pair.names}
        running.send_signal(signal.SIGKILL)
    async with asyncio.timeout(30):
        while True:
            left = await pair.shell("ps -o args | grep '^sleep 773'")
            if not any(each.value.stdout for each in left.values()):
                break
            await asyncio.sleep(0.2)

    # The moves of life.
    await pair.save_snapshot("both")
    await pair.shell("rm /tmp/me", check=True)
    (await pair.restore_snapshot("both")).check()
    (await pair.delete_snapshot("both")).check()
    assert (await pair.exec("cat", "/tmp/me", check=True)).check()
    (await pair.pause()).check()
    assert {each.value for each in (await pair.state()).values()} == {MachineState.PAUSED}
    code, out, err = await asyncio.to_thread(run, home, "exec", "@pair", "--", "true")
    assert code == 125
    assert err.count("it is paused") == 2
    (await pair.resume()).check()
    assert not (await pair.ping()).failed
