"""attach.sh, the guest's half of `hostctl attach`, under four shells, with a real agent."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hostctl_guestside import agent, attach_script
from tests.twin import SHELLS, Family, twin_path

INITTAB = b"::sysinit:/etc/rc\n::respawn:/bin/getty ttyS0\n"
SERVICES = {"systemd": "systemctl", "openrc": "rc-update", "sysvinit": "update-rc.d"}


class Guest:
    """A folder that stands for a guest: its root, its PATH, and whom it started."""

    def __init__(self, shell: str, folder: Path) -> None:
        self.shell = shell
        self.root = folder / "root"
        self.tools = folder / "tools"
        self.agent = folder / "agent.sh"
        self.family = Family()
        self.calls = folder / "calls"
        for name in ("etc/init.d", "sbin", "run", "usr/sbin"):
            (self.root / name).mkdir(parents=True)
        self.tools.mkdir()
        self.agent.write_bytes(agent())
        self._path = twin_path(shell, folder)
        self._folder = folder

    def tool(self, name: str, line: str = "") -> None:
        """Add a program that only writes down how it was called."""
        path = self.tools / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{line}\n')
        path.chmod(0o755)

    def run(
        self, *words: str, root: bool = False, deaf: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run attach.sh; `deaf` to SIGINT, as some inits start their services."""
        key, _, mark = self.family.mark.partition("=")
        argv = SHELLS[self.shell]
        shell = (shutil.which(argv[0]) or argv[0], *argv[1:])
        environ = {"PATH": f"{self.tools}:{self._path}", "TMPDIR": str(self._folder), key: mark}
        environ["HOSTCTL_PORTS"] = str(self.root)  # no ports there
        if root:
            environ["ROOT"] = str(self.root)
        script = attach_script().decode()
        return subprocess.run(
            [*shell, "-c", script, "attach", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            preexec_fn=_ignore_interrupts if deaf else None,
        )


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def ignores_interrupts(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigIgn:\t")[1].split()[0], 16) & 1 << signal.SIGINT - 1)


@pytest.fixture
def guest(shell: str, folder: Path) -> Guest:
    return Guest(shell, folder)


def check(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_agent_is_started_once_and_stopped(guest: Guest) -> None:
    path = str(guest.agent)
    try:
        for _ in range(2):
            check(guest.run("start", path))
            assert len([p for p in guest.family.pids() if _is_main(p, path)]) == 1
        check(guest.run("stop", path))
        check(guest.run("stop", path))
    finally:
        left = guest.family.end(10)
    assert left == []


def test_a_started_agent_hears_interrupts(guest: Guest) -> None:
    """What a shell starts by & ignores SIGINT for good: no Ctrl-C would reach a command."""
    path = str(guest.agent)
    try:
        check(guest.run("start", path))
        pid = main_of(guest)
        assert not ignores_interrupts(pid)
        check(guest.run("stop", path))
    finally:
        guest.family.end(10)


def main_of(guest: Guest) -> int:
    """Wait for the agent's process; what starts it may have another name for a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for pid in guest.family.pids():
            if _is_main(pid, str(guest.agent)):
                return pid
        time.sleep(0.02)
    raise AssertionError(f"no agent runs: {guest.family.lines()}")


def _is_main(pid: int, path: str) -> bool:
    """Tell an agent from its subshells, which have its arguments: its folder bears its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    roots = ("/run", "/dev/shm", os.path.dirname(path))
    return path.encode() in words and any(os.path.isdir(f"{r}/hostctl.{pid}") for r in roots)


def test_an_agent_that_cannot_run_is_told_of(guest: Guest) -> None:
    guest.agent.write_text("exit 3\n")
    done = guest.run("start", str(guest.agent))
    assert done.returncode == 1
    assert "did not start" in done.stderr


@pytest.mark.parametrize("path", ["", "agent.sh", "/tmp/a b", "/tmp/$(reboot)", "/tmp/a'b"])
def test_a_path_that_a_shell_could_misread_is_refused(guest: Guest, path: str) -> None:
    done = guest.run("install", path, root=True)
    assert done.returncode == 1
    assert "not a plain path" in done.stderr


def test_the_kind_of_service_is_found(guest: Guest) -> None:
    assert check(guest.run("kind", root=True)) == "none\n"
    (guest.root / "etc/inittab").write_bytes(INITTAB)
    assert check(guest.run("kind", root=True)) == "inittab\n"
    executable(guest.root / "usr/sbin/update-rc.d")
    assert check(guest.run("kind", root=True)) == "sysvinit\n"
    executable(guest.root / "sbin/openrc-run")
    assert check(guest.run("kind", root=True)) == "openrc\n"
    (guest.root / "run/systemd/system").mkdir(parents=True)
    assert check(guest.run("kind", root=True)) == "systemd\n"


def test_no_kind_of_service_is_an_error_that_says_so(guest: Guest) -> None:
    done = guest.run("install", str(guest.agent), root=True)
    assert (done.returncode, "without --persist" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("init", "line"),
    [
        ("busybox", "::respawn:/bin/sh {} </dev/null\n"),
        ("sysvinit", "hctl:12345:respawn:/bin/sh {}\n"),
    ],
)
def test_inittab_gets_one_line_and_loses_it_again(guest: Guest, init: str, line: str) -> None:
    table, path = guest.root / "etc/inittab", str(guest.agent)
    table.write_bytes(INITTAB)
    executable(guest.root / f"sbin/{init}")
    (guest.root / "sbin/init").symlink_to(init)
    for _ in range(2):
        check(guest.run("install", path, root=True))
        assert table.read_bytes() == INITTAB + line.format(path).encode()
    for _ in range(2):
        check(guest.run("remove", path, root=True))
        assert table.read_bytes() == INITTAB


def test_systemd_gets_a_unit_that_runs_now_and_at_boot(guest: Guest) -> None:
    (guest.root / "run/systemd/system").mkdir(parents=True)
    (guest.root / "etc/systemd/system").mkdir(parents=True)
    guest.tool("systemctl")
    check(guest.run("install", str(guest.agent), root=True))
    unit = guest.root / "etc/systemd/system/hostctl-agent.service"
    assert f"ExecStart=/bin/sh {guest.agent}\n" in unit.read_text()
    assert guest.calls.read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl enable --quiet --now hostctl-agent",
    ]
    check(guest.run("remove", str(guest.agent), root=True))
    assert not unit.exists()
    assert guest.calls.read_text().splitlines()[2:] == [
        "systemctl disable --quiet hostctl-agent",
        "systemctl --quiet stop --no-block hostctl-agent",
    ]


def test_a_service_that_is_refused_is_an_error(guest: Guest) -> None:
    (guest.root / "run/systemd/system").mkdir(parents=True)
    (guest.root / "etc/systemd/system").mkdir(parents=True)
    guest.tool("systemctl", "exit 1")
    done = guest.run("install", str(guest.agent), root=True)
    assert (done.returncode, done.stderr) == (1, "systemd refuses\n")


def test_openrc_gets_a_script(guest: Guest) -> None:
    executable(guest.root / "sbin/openrc-run")
    for name in ("rc-update", "rc-service"):
        guest.tool(name)
    check(guest.run("install", str(guest.agent), root=True))
    script = guest.root / "etc/init.d/hostctl-agent"
    assert os.access(script, os.X_OK)
    assert f'command_args="{guest.agent}"\n' in script.read_text()
    check(guest.run("remove", str(guest.agent), root=True))
    assert not script.exists()
    assert guest.calls.read_text().splitlines() == [
        "rc-update add hostctl-agent default",
        "rc-service hostctl-agent start",
        "rc-service hostctl-agent stop",
        "rc-update del hostctl-agent default",
    ]


@pytest.mark.needs("start-stop-daemon")
def test_sysvinit_gets_a_script_that_starts_and_stops_the_agent(guest: Guest) -> None:
    executable(guest.root / "usr/sbin/update-rc.d")
    guest.tool("update-rc.d")
    guest.tool("start-stop-daemon", f'exec {shutil.which("start-stop-daemon")} "$@"')
    guest.tool("env", f'exec {shutil.which("env")} "$@"')  # busybox' own is too simple
    script = guest.root / "etc/init.d/hostctl-agent"
    try:
        # As sysvinit runs it at boot: what a shell starts by & ignores SIGINT.
        check(guest.run("install", str(guest.agent), root=True, deaf=True))
        pid = main_of(guest)
        assert not ignores_interrupts(pid)
        check(guest.run("remove", str(guest.agent), root=True))
    finally:
        left = guest.family.end(10)
    shutil.rmtree(f"/run/hostctl.{pid}", ignore_errors=True)  # without ports, nobody else is left
    assert left == []
    assert not script.exists()
    assert guest.calls.read_text().splitlines()[0] == "update-rc.d hostctl-agent defaults"


def executable(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
