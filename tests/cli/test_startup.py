"""What `hostctl --help` may cost: a person waits for it, and a shell asks for it."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET_S = 0.060  # of CPU, over a bare interpreter's start
ROUNDS = 7
HEAVY = {
    "asyncio",
    "construct",
    "dataclasses",
    "hostctl.controller",
    "hostctl.errors",
    "hostctl.machine",
    "hostctl_channels",
    "hostctl_images",
    "importlib.metadata",
    "json",
    "logging",
    "qemu",
    "rich",
    "shtab",
    "subprocess",
}
RUN = "import sys; sys.argv[0] = 'hostctl'; from hostctl.cli.main import main; sys.exit(main())"


def python(*argv: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run an interpreter with compiled modules, as an installed hostctl has them."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    environ |= {"PYTHONPYCACHEPREFIX": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *argv], env=environ, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("line", ["--help", "--version", "exec --help", "create --help"])
def test_help_loads_nothing_heavy(line: str, tmp_path: Path) -> None:
    done = python("-X", "importtime", "-c", RUN, *line.split(), cache=tmp_path)
    loaded = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert "hostctl.cli.main" in loaded
    assert loaded & HEAVY == set()


COMMAND = (
    "import sys; from hostctl.cli.main import _load; _load('exec:exec_');"
    " import hostctl.backends.qemu.backend, hostctl_channels.agent_channel;"
    " print(*sys.modules)"
)
SPARED = {
    "construct",
    "datetime",
    "hashlib",
    "hostctl.backends.report",
    "qemu",
    "rich",
    "shutil",
    "ssl",
    "tempfile",
}


def test_a_command_loads_nothing_it_has_no_use_for(tmp_path: Path) -> None:
    loaded = set(python("-c", COMMAND, cache=tmp_path).stdout.split())
    assert "hostctl_channels.agent_channel" in loaded
    assert loaded & SPARED == set()


@pytest.mark.slow
def test_help_is_within_its_budget(tmp_path: Path) -> None:
    python("-c", RUN, "--help", cache=tmp_path)
    bare = min(cpu_s("-c", "pass", cache=tmp_path) for _ in range(ROUNDS))
    ours = min(cpu_s("-c", RUN, "--help", cache=tmp_path) for _ in range(ROUNDS))
    assert ours - bare <= BUDGET_S


def cpu_s(*argv: str, cache: Path) -> float:
    """Return the CPU time of one interpreter, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(*argv, cache=cache)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
