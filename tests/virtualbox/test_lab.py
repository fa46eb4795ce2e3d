"""The lab itself: real, whole, and gone without a trace, however its tests end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .laboratory import GUEST_MARKS, PASSWORD, PROJECT, Lab
from .machine import LabMachine

pytestmark = [*GUEST_MARKS, pytest.mark.timeout(300)]


def test_it_is_virtualbox_as_debian_has_it(lab: Lab) -> None:
    assert lab.manage("--version").startswith("7.")
    changed = lab.run("dpkg", "--verify", "virtualbox", check=False)
    assert "VBoxVMM" not in changed
    assert "VBoxSVC" not in changed


def test_its_guest_boots_and_its_guest_control_answers(lab: Lab, booted: LabMachine) -> None:
    booted.restore()
    booted.await_additions()
    login = ("guestcontrol", booted.name, "--username=root", f"--password={PASSWORD}")
    assert lab.manage(*login, "run", "--exe=/bin/busybox", "--", "uname", "-s") == "Linux\n"


def test_a_killed_machine_is_noticed_and_comes_back(booted: LabMachine) -> None:
    booted.restore()
    booted.kill()
    assert not booted.pids()
    booted.restore()
    assert booted.state == "running"


def test_nothing_survives_a_killed_test_run() -> None:
    """The lab of another process, with a VBoxSVC that runs, is killed with its process."""
    script = """
from tests.virtualbox.laboratory import Lab
with Lab() as lab:
    lab.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    for _ in range(50):  # VBoxSVC ends when nobody has asked it anything for five seconds
        lab.manage("list", "vms")
        if len(pids := [*lab.pids("VBoxSVC"), *lab.pids("sleep")]) == 2:
            break
    print(lab.folder, *pids, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        text=True,
    ) as child:
        assert child.stdout is not None
        folder, *pids = child.stdout.readline().split()
        child.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "the lab outlives its process"
        time.sleep(0.02)
    assert folder not in Path("/proc/mounts").read_text()
    subprocess.run(["rm", "-r", folder], check=True)
