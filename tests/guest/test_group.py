"""A hundred machines, each a real agent: fan-out, files both ways, jobs, failures of a few."""

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hostctl import sync
from hostctl.controller import Controller
from hostctl.errors import CommandFailed, GroupFailed, MachineNotFound, NothingMatches, Skipped
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.interface import Result
from tests.fleet import Fleet, fleet

pytestmark = [pytest.mark.needs("dash"), pytest.mark.timeout(120)]

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HUNDRED = [f"vm.{rack}.{number}" for rack in range(10) for number in range(10)]


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="hf-") as root:
        Path(root).chmod(0o755)
        yield Home(Path(root) / "s", Path(root) / "r")


@pytest.fixture
async def controller(home: Home) -> AsyncIterator[Controller]:
    async with fleet(home, HUNDRED[:30]) as controller:
        yield controller


async def test_a_hundred_machines_each_give_their_own_answer(home: Home) -> None:
    async with fleet(home, HUNDRED) as controller:
        await each_gives_its_own_answer(controller)


async def each_gives_its_own_answer(controller: Controller) -> None:
    group = controller.select("vm.*", parallel=25)
    assert len(group) == 100
    arrived = []
    async for outcome in group.shell('echo "${PWD}$1"', check=True):
        arrived.append(outcome.name)
        assert outcome.value.stdout == b"/\n"
    assert sorted(arrived) == sorted(HUNDRED)

    results = await group.each(lambda machine: machine.exec("echo", machine.name))
    assert list(results) == sorted(HUNDRED), "a mapping keeps the order of the names"
    assert all(each.value.stdout == f"{name}\n".encode() for name, each in results.items())


async def test_some_fail_and_the_others_do_not_care(controller: Controller) -> None:
    group = controller.select("vm.[01].*")

    async def odd(machine: Machine) -> Result:
        code = "3" if machine.name.endswith(("3", "7")) else "0"
        return await machine.exec("sh", "-c", f"exit {code}", check=True)

    results = await group.each(odd)
    assert [each.name for each in results.failed] == ["vm.0.3", "vm.0.7", "vm.1.3", "vm.1.7"]
    assert all(isinstance(each.error, CommandFailed) for each in results.failed)
    with pytest.raises(GroupFailed, match=r"4 of 20 machines failed: vm\.0\.3: "):
        results.check()


async def test_the_first_failure_kills_what_runs(controller: Controller) -> None:
    group = controller.select("vm.0.*", parallel=4, fail_fast=True)

    async def work(machine: Machine) -> Result:
        if machine.name == "vm.0.1":
            await asyncio.sleep(0.5)
            return await machine.exec("false", check=True)
        return await machine.shell("sleep 50")

    async with asyncio.timeout(30):
        results = await group.each(work)
    assert [each.name for each in results.failed] == ["vm.0.1"]
    assert len(results.skipped) == 9
    assert all(isinstance(each.error, Skipped) for each in results.skipped)


class OnceOnly(io.RawIOBase):
    """A pipe: it cannot seek, and counts what was read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._rest, self.given = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        self.given += count
        return count


@pytest.mark.parametrize("kind", ["pipe", "path", "file", "bytes", "memory"])
async def test_a_put_reads_its_source_once(controller: Controller, kind: str, home: Home) -> None:
    data = os.urandom(300_000)
    path = home.state / "source"
    path.write_bytes(b"not this" + data)
    group = controller.select("vm.[0-2].*", parallel=8)
    with path.open("rb") as file:
        file.seek(8)
        pipe = OnceOnly(data)
        memory = io.BytesIO(b"x" + data)
        memory.seek(1)
        whole = home.state / "whole"
        whole.write_bytes(data)
        source = {"pipe": pipe, "path": whole, "file": file, "bytes": data, "memory": memory}[kind]
        # All twins have the same files: the last one wins, whole.
        done = (await group.put(source, f"{home.state}/landed", mode=0o600)).check()  # type: ignore[arg-type]
        assert file.tell() == 8
    assert [each.value.size_bytes for each in done.values()] == [len(data)] * 30
    assert (home.state / "landed").read_bytes() == data
    assert kind != "pipe" or pipe.given == len(data)


async def test_files_come_back_into_a_folder_each(controller: Controller, home: Home) -> None:
    group = controller.select("vm.2.*")
    into = home.state / "out"
    got = await group.get("/etc/hostname", into)
    got.check()
    assert sorted(path.parent.name for path in into.glob("*/hostname")) == sorted(group.names)
    assert (await group.get("/no/such/file", into)).failed
    assert not list(into.glob("*/file"))
    lost = await group.get("/no/such/file", into / "other")
    assert len(lost.failed) == 10
    assert not list((into / "other").iterdir()), "nothing is left of what failed"


async def test_a_detached_command_gives_each_machine_a_job(controller: Controller) -> None:
    group = controller.select("vm.0.*,vm.1.*")
    started = (await group.spawn("sh", "-c", "echo out; exit 5")).check()
    jobs = {name: each.value for name, each in started.items()}
    ends = await group.each(lambda machine: jobs[machine.name].wait(30))
    assert {each.value.code for each in ends.values()} == {5}
    listed = await group.jobs()
    assert all(each.value[0].id == jobs[name].id for name, each in listed.items())


async def test_selection_by_tag_survives_the_process(controller: Controller, home: Home) -> None:
    await controller.select("vm.1.*").change_tags(add=["ci", "@slow"])
    await controller.machine("vm.1.0").change_tags(remove=["ci"])
    async with Controller(home) as other:
        assert other.machine("vm.1.1").tags == ("ci", "slow")
        assert other.select("@ci").names == tuple(f"vm.1.{n}" for n in range(1, 10))
        assert len(other.select("@s*")) == 10
        with pytest.raises(NothingMatches, match="no machine matches '@none'"):
            other.select("@none")
        assert len(other.select("@none", allow_empty=True)) == 0
        with pytest.raises(MachineNotFound):
            other.select("vm.0.0", "nobody")


def test_without_async_verbs_wait_and_each_yields(home: Home) -> None:
    ships = Fleet(home)
    with ships.installed():
        asyncio.run(ships.create(HUNDRED[:12]))
        with sync.Controller(home) as controller:
            group = controller.select("vm.*", parallel=10)
            results = group.exec("echo", "hi", check=True).check()
            assert {each.value.stdout for each in results.values()} == {b"hi\n"}
            names = {o.name: o.value for o in group.each(lambda m: m.shell("pwd").stdout)}
            assert len(names) == 12
            for outcome in group.each(lambda machine: machine.name):
                assert outcome.value == outcome.name
                break  # leaving early is fine
            job = group.spawn("true").check()["vm.0.0"].value
            assert job.wait(20).code == 0
            assert [machine.name for machine in group] == list(group.names)
        ships.hang_up()
