import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hostctl.backends.process import ProcessId, find_by_argument


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60.0625"])
    yield process
    process.kill()
    process.wait()


def identify(child: subprocess.Popen[bytes]) -> ProcessId:
    process = ProcessId.of(child.pid)
    assert process is not None
    return process


def test_a_process_is_known_while_it_lives(child: subprocess.Popen[bytes]) -> None:
    process = identify(child)
    assert process.is_alive
    assert 0 <= process.uptime_s < 60


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_a_recycled_pid_is_never_killed(
    child: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    stranger = replace(identify(child), **change)  # type: ignore[arg-type]  # one of two types
    assert not stranger.is_alive
    assert stranger.send(signal.SIGKILL) is False
    assert child.poll() is None


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessId.of(process.pid) is None
    process.wait()


def test_a_name_with_blanks_and_parentheses_is_parsed() -> None:
    # argv[0] of `sleep` does not change its comm; a copy of python with prctl would be needed: the
    # test process itself is renamed instead.
    with open("/proc/self/comm", "r+") as comm:
        old = comm.read().strip()
        comm.seek(0)
        comm.write("a) S (1 2")
    try:
        process = ProcessId.of(os.getpid())
        assert process is not None
        assert process.is_alive
    finally:
        with open("/proc/self/comm", "w") as comm:
            comm.write(old)


def test_nobody_has_no_identity() -> None:
    assert ProcessId.of(2**22 + 1) is None


def test_a_process_is_found_by_its_argument(child: subprocess.Popen[bytes]) -> None:
    found = None
    deadline = time.monotonic() + 10
    # Popen returns in the middle of the child's exec: its arguments may not be there yet.
    while found is None and time.monotonic() < deadline:
        found = find_by_argument("60.0625")
    assert found is not None
    assert found.pid == child.pid
    assert find_by_argument("60.06") is None


async def test_ending_is_polite_first_then_not() -> None:
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 60; done"], stdout=-1
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    process = identify(deaf)
    await process.end(polite_s=0.05)
    assert not process.is_alive
    await process.end(polite_s=0.05)
    deaf.stdout.close()
    deaf.wait()
