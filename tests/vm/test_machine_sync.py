"""The API without async, on the machine of all."""

import threading
import time
from collections.abc import Iterator

import pytest

from hostctl.errors import CommandFailed, SnapshotNotFound
from hostctl.lifecycle import MachineState
from hostctl.state import Home
from hostctl.sync import Controller, Machine

from .conftest import BASE, NAME

pytestmark = pytest.mark.vm


@pytest.fixture
def machine(home: Home) -> Iterator[Machine]:
    with Controller(home) as controller:
        machine = controller.machine(NAME)
        machine.restore_snapshot(BASE)
        yield machine


def test_commands_files_and_states(machine: Machine) -> None:
    assert machine.state() is MachineState.RUNNING
    machine.put(b"hello\n", "/tmp/f")
    assert machine.read("/tmp/f") == b"hello\n"
    assert machine.shell("cat /tmp/f", check=True).stdout == b"hello\n"
    assert machine.ping() > 0
    assert machine.describe().nics == ()


def test_errors_come_through(machine: Machine) -> None:
    with pytest.raises(CommandFailed):
        machine.exec("false", check=True)
    with pytest.raises(SnapshotNotFound):
        machine.restore_snapshot("nonesuch")


def test_a_live_process_can_be_written_to_and_killed(machine: Machine) -> None:
    with machine.process("cat", stdin=True) as process:
        process.write(b"ping\n")
        assert process.read() == (1, b"ping\n")
        process.signal("KILL")
        assert process.wait().signal == 9
    begun = time.monotonic()
    with machine.process("sleep", "60"):
        pass
    assert time.monotonic() - begun < 20


def test_an_error_inside_a_spawn_ends_it(machine: Machine) -> None:
    with pytest.raises(ZeroDivisionError), machine.process("sleep", "60"):
        raise ZeroDivisionError


def test_a_program_that_is_not_there_is_told_at_once(machine: Machine) -> None:
    assert machine.exec("/no/such/program").exit.code == 127


def test_several_threads_share_a_machine(machine: Machine) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(machine.exec("echo", "hi").stdout))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [b"hi\n"] * 4
