"""Jobs in a real machine: through the death of its agent, a pause, a snapshot and a restore."""

import asyncio
import contextlib

import pytest

from hostctl.controller import Controller
from hostctl.errors import DeadlineExceeded, JobNotFound
from hostctl.job import Job, JobState
from hostctl.machine import Machine
from hostctl_channels.interface import STDERR, STDOUT

pytestmark = pytest.mark.vm

TICKS = "i=0; while [ $i -lt 40 ]; do echo $i; echo e$i >&2; i=$((i + 1)); sleep 0.1; done; exit 9"
KILL_AGENTS = """for f in /run/hostctl.*/*.pid; do
read -r p x <$f && [ $p != $PPID ] && kill -9 $p; done; kill -9 $PPID"""


async def gathered(job: Job) -> tuple[bytes, bytes]:
    """Follow a job to its end."""
    found = {STDOUT: b"", STDERR: b""}
    async for stream, data in job.follow():
        found[stream] += data
    return found[STDOUT], found[STDERR]


def ticks(prefix: str = "") -> bytes:
    return "".join(f"{prefix}{i}\n" for i in range(40)).encode()


async def test_another_process_finds_it_and_its_end(
    machine: Machine, controller: Controller
) -> None:
    job = await machine.spawn(
        "sh", "-c", "cat; echo $X $PWD >&2; exit 4", input=b"in", env={"X": "x"}, cwd="/tmp"
    )
    async with Controller(controller.home) as other:
        again = other.machine(machine.name).job(job.id)
        assert (await again.wait(30)).code == 4
        assert await again.output() == (b"in", b"x /tmp\n")
        (listed,) = await other.machine(machine.name).jobs()
        assert (listed.id, listed.state, listed.argv[0]) == (job.id, JobState.ENDED, "sh")
        await again.forget()
    with pytest.raises(JobNotFound):
        await job.status()


async def test_a_log_is_whole_though_the_agent_dies_and_the_machine_pauses(
    machine: Machine,
) -> None:
    job = await machine.spawn("sh", "-c", TICKS)
    following = asyncio.create_task(gathered(job))
    await asyncio.sleep(1)
    with contextlib.suppress(Exception):  # the agent cannot tell of its own death
        await machine.shell(KILL_AGENTS, timeout_s=5)
    await asyncio.sleep(0.5)
    await machine.pause()
    await asyncio.sleep(1)
    await machine.resume()
    async with asyncio.timeout(60):
        assert await following == (ticks(), ticks("e"))
    assert (await job.wait(10)).code == 9


async def test_after_a_restore_the_jobs_are_those_of_the_restored_world(machine: Machine) -> None:
    kept = await machine.spawn("sh", "-c", TICKS)
    await asyncio.sleep(0.5)
    await machine.save_snapshot("moment")
    later = await machine.spawn("sleep", "300")
    assert (await kept.wait(60)).code == 9
    await machine.restore_snapshot("moment")
    assert [job.id for job in await machine.jobs()] == [kept.id]
    assert (await kept.status()).state is JobState.RUNNING
    with pytest.raises(JobNotFound):
        await later.status()
    assert await gathered(kept) == (ticks(), ticks("e"))
    await machine.delete_snapshot("moment")


async def test_waiting_has_an_end_and_leaves_it_alone(machine: Machine) -> None:
    job = await machine.spawn("sleep", "300")
    with pytest.raises(DeadlineExceeded):
        await job.wait(1)
    assert (await job.status()).state is JobState.RUNNING
    await job.signal("KILL")
    assert (await job.wait(30)).signal == 9
    limited = await machine.spawn("sleep", "300", timeout_s=1)
    assert (await limited.wait(30)).timed_out


async def test_a_user_runs_it_and_a_flood_is_cut(machine: Machine) -> None:
    job = await machine.spawn(
        "sh", "-c", "id -un; yes | head -c 3000000", user="user", keep_bytes=1 << 20
    )
    assert (await job.wait(30)).ok
    status = await job.status()
    assert (status.stdout_bytes, status.stdout_cut, status.stderr_cut) == (1 << 20, True, False)
    out, _ = await job.output()
    assert (len(out), out[:7]) == (1 << 20, b"user\ny\n")
