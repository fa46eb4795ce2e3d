"""The whole way, as a user types it: one machine's life on the real VirtualBox."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from .laboratory import GUEST_MARKS, PASSWORD, Lab

pytestmark = [*GUEST_MARKS, pytest.mark.timeout(600), pytest.mark.usefixtures("alone")]

HOSTCTL = [sys.executable, "-m", "hostctl"]
RUN_S = 120


class Shell:
    """Types commands into a home of its own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run `hostctl WORDS`; return what it prints."""
        done = subprocess.run(
            [*HOSTCTL, *words],
            env=dict(self._environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        assert done.returncode == status, f"{words}: {done.returncode}: {done.stderr}"
        assert PASSWORD not in done.stderr
        return done.stdout


@pytest.fixture
def hostctl(lab: Lab) -> Iterator[Shell]:
    with tempfile.TemporaryDirectory(prefix="hc-") as folder:
        home = {"HOSTCTL_STATE_DIR": f"{folder}/s", "HOSTCTL_RUNTIME_DIR": f"{folder}/r"}
        shell = Shell({**os.environ, **lab.settings, **home})
        try:
            yield shell
        finally:
            for name in shell("list", "-q").split():
                shell("delete", "-f", name)


@pytest.fixture
def login(tmp_path: Path) -> Path:
    path = tmp_path / "login.toml"
    path.write_text(f'user = "root"\npassword = "{PASSWORD}"\n')
    path.chmod(0o600)
    return path


def test_a_machine_lives_from_create_to_delete(
    lab: Lab, hostctl: Shell, login: Path, tmp_path: Path
) -> None:
    cd = f"--disk={lab.guest_iso}"
    shape = ("--memory=96M", "--accel=tcg", "--backend=virtualbox", f"--login={login}")
    hostctl("create", "web", cd, *shape)
    hostctl("start", "web")
    assert hostctl("exec", "web", "--", "sh", "-c", "echo hello; exit 3", status=3) == "hello\n"
    file = tmp_path / "file"
    file.write_bytes(os.urandom(100_000))
    hostctl("cp", "-q", str(file), "web:/tmp/file")
    hostctl("cp", "-q", "web:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes()

    shown = json.loads(hostctl("show", "web", "--json"))
    assert shown["network"]["nics"] == []
    assert shown["network"]["isolated"] in (True, None)  # None: the guest took more than 5 s
    assert (shown["state"], shown["accel"]) == ("running", "tcg")
    assert shown["channel"] == "VirtualBox guest control"
    assert shown["pid"] in lab.pids("VBoxHeadless")

    hostctl("pause", "web")
    hostctl("exec", "web", "--", "true", status=125)
    hostctl("resume", "web")
    hostctl("snapshot", "save", "web", "before")
    hostctl("exec", "web", "--", "rm", "/tmp/file")
    hostctl("snapshot", "restore", "web", "before")
    assert hostctl("exec", "web", "--", "ls", "/tmp/file") == "/tmp/file\n"

    # The agent has greeted a line that nobody read, and is saved while it waits there.
    hostctl("stop", "--save", "web")
    hostctl("start", "web")
    assert hostctl("exec", "web", "--", "ls", "/tmp/file") == "/tmp/file\n"
    assert hostctl("exec", "--channel=serial", "web", "--", "echo", "there") == "there\n"
    hostctl("stop", "--force", "web")  # this guest has no ACPI: no button ends it
    hostctl("delete", "web")
    assert "hostctl-web" not in lab.manage("list", "vms")


def test_a_login_that_others_may_read_makes_no_machine(
    lab: Lab, hostctl: Shell, login: Path
) -> None:
    login.chmod(0o644)
    words = (f"--disk={lab.guest_iso}", "--backend=virtualbox", f"--login={login}")
    hostctl("create", "web", *words, status=1)
    assert hostctl("list", "-q") == ""
    assert "hostctl-web" not in lab.manage("list", "vms")
