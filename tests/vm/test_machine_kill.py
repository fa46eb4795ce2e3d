"""hostctl is killed with SIGKILL before each step that changes something; the next one copes.

An audit hook of Python counts those steps (renames, removals, spawns, connections), so no step is
forgotten when the code changes. The guest is a boot sector.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.qemu.backend import QemuBackend
from hostctl.controller import Controller
from hostctl.errors import BootFailed, Busy, MachineNotFound
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home, locked

from ..bootsector import REBOOTING, boot_spec
from ..homes import emptied

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

NAME = "victim"
SCRIPT = """
import asyncio, os, signal, sys
from pathlib import Path
from hostctl.controller import Controller
from hostctl.state import Home
from tests.bootsector import boot_spec

STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.posix_spawn", "socket.connect"}
left = int(sys.argv[3])

def count(event, arguments):
    global left
    if event in STEPS:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    root = Path(sys.argv[1])
    async with Controller(Home(root / "s", root / "r")) as controller:
        spec = boot_spec("victim", root)
        machine = None if sys.argv[2] == "create" else controller.machine("victim")
        work = {
            "create": lambda: controller.create(spec),
            "start": lambda: machine.start(wait=False),
            "stop": lambda: machine.stop(force=True),
            "save": lambda: machine.save_snapshot("a"),
            "restore": lambda: machine.restore_snapshot("a"),
            "delete": lambda: machine.delete(force=True),
        }[sys.argv[2]]
        import hostctl.backends.qemu.monitor, hostctl.backends.qemu.snapshot
        sys.addaudithook(count)
        await work()
    left = 0

asyncio.run(main())
os._exit(0)
"""


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hk-") as root:
        yield Path(root)


@pytest.fixture
async def controller(root: Path) -> AsyncIterator[Controller]:
    async with emptied(Home(root / "s", root / "r")) as controller:
        yield controller


async def dies_at(root: Path, operation: str, step: int) -> bool:
    """Run an operation in a process killed before its `step`-th step; False if it has fewer."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, str(root), operation, str(step)),
        env=environ,
        cwd=Path(__file__).parents[2],
    )
    status = await process.wait()
    assert status in (0, -9)
    return status != 0


def qemus(root: Path) -> int:
    """Count the processes of this test's machine."""
    found = 0
    for entry in os.listdir("/proc"):
        try:
            command = (Path("/proc") / entry / "cmdline").read_bytes()
        except OSError:
            continue
        found += command.startswith(b"qemu-system") and str(root).encode() in command
    return found


async def goes_on(machine: Machine) -> bool:
    """Tell whether the guest runs once somebody else has used its machine, in QEMU's words, too."""
    await machine.start(wait=False)
    assert await machine.state() is MachineState.RUNNING
    backend = machine._backend
    assert isinstance(backend, QemuBackend)
    async with backend._monitor() as qmp:
        return bool((await qmp.execute("query-status"))["running"])


def litter(root: Path) -> set[str]:
    """Return what is neither a machine nor a lock in the two directories."""
    names = {*os.listdir(root / "s" / "machines"), *os.listdir(root / "r")}
    return names - {NAME}


async def test_create_is_all_or_nothing(controller: Controller, root: Path) -> None:
    step = 1
    while await dies_at(root, "create", step):
        assert controller.home.names() in ((), (NAME,))
        for machine in controller.machines():
            assert await machine.state() is MachineState.STOPPED
            await machine.delete()
        await controller.create(boot_spec(NAME, root))
        await controller.machine(NAME).delete()
        assert litter(root) == set()
        step += 1
    assert step > 3


async def test_start_never_loses_a_process_nor_makes_two(
    controller: Controller, root: Path
) -> None:
    machine = await controller.create(boot_spec(NAME, root))
    step = 1
    while await dies_at(root, "start", step):
        before = qemus(root)
        alive = (await machine.state()).is_alive
        assert alive is (before == 1)
        await machine.start(wait=False)
        assert qemus(root) == 1
        assert await machine.state() is MachineState.RUNNING
        await machine.stop(force=True)
        assert qemus(root) == 0
        assert os.listdir(root / "r") == []
        step += 1
    assert step > 5


@pytest.mark.parametrize("operation", ["stop", "delete"])
async def test_an_end_that_was_cut_short_can_be_repeated(
    controller: Controller, root: Path, operation: str
) -> None:
    machine = await controller.create(boot_spec(NAME, root))
    step = 1
    while True:
        await machine.start(wait=False)
        if not await dies_at(root, operation, step):
            break
        try:
            await controller.machine(NAME).stop(force=True)
            assert await machine.state() is MachineState.STOPPED
        except MachineNotFound:
            machine = await controller.create(boot_spec(NAME, root))
        assert qemus(root) == 0
        assert os.listdir(root / "r") == []
        step += 1
    assert step > 3
    assert qemus(root) == 0


async def test_snapshots_survive_a_killed_save_and_restore(
    controller: Controller, root: Path
) -> None:
    machine = await controller.create(boot_spec(NAME, root))
    await machine.start(wait=False)
    await machine.save_snapshot("good")
    step = 1
    while await dies_at(root, "save", step):
        step += 1
        assert await goes_on(machine)
        await machine.restore_snapshot("good")
        for snapshot in await machine.list_snapshots():
            await machine.restore_snapshot(snapshot.tag)
            if snapshot.tag != "good":
                await machine.delete_snapshot(snapshot.tag)
    step = 1
    while await dies_at(root, "restore", step):
        step += 1
        assert await goes_on(machine)
    assert step > 3


async def test_two_starts_at_once_make_one_process(controller: Controller, root: Path) -> None:
    await controller.create(boot_spec(NAME, root))
    await asyncio.gather(*(dies_at(root, "start", 10_000) for _ in range(3)))
    assert qemus(root) == 1


async def test_a_busy_machine_names_who_holds_it(
    controller: Controller, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostctl.machine_lock.LOCK_S", 0.05)
    machine = await controller.create(boot_spec(NAME, root))
    async with locked(machine.directory / "lock", "it", "start", 0):
        with pytest.raises(Busy, match=rf"process {os.getpid()} \(start\)"):
            await machine.start()


async def test_a_guest_that_ends_while_it_boots_is_told_at_once(
    controller: Controller, root: Path
) -> None:
    machine = await controller.create(boot_spec(NAME, root, REBOOTING))
    with pytest.raises(BootFailed, match="it ended before its agent answered"):
        await machine.start(timeout_s=60)
    assert await machine.state() is MachineState.STOPPED


async def test_a_guest_without_an_agent_is_left_running_and_quoted(
    controller: Controller, root: Path
) -> None:
    machine = await controller.create(boot_spec(NAME, root))
    with pytest.raises(
        BootFailed, match=r"did not answer within 1 s; its console says: .*012"
    ) as e:
        await machine.start(timeout_s=1)
    assert e.value.hint == f"hostctl console {NAME}"
    assert await machine.state() is MachineState.RUNNING
    await machine.stop(timeout_s=1)
    assert await machine.state() is MachineState.STOPPED
