"""The command line as a user meets it: whole processes, from start to exit, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from hostctl.machine import Machine
from hostctl.state import Home

from .guest import NAME
from .samples import Samples

__all__ = ["TASK", "environment", "measure"]

TASK: Final = "hostctl exec NAME -- true"


async def measure(machine: Machine, home: Home, samples: Samples, count: int) -> None:
    """Run one round: the command through the API, as a process, and Python's bare start."""
    for name in ("API", "process", "bare Python"):
        run = {"process": _command(), "bare Python": [sys.executable, "-c", ""]}.get(name)
        values = []
        for _ in range(count + 1):
            begin = time.perf_counter()
            if run is None:
                await machine.exec("true", check=True)
            else:
                _run(run, home)
            values.append((time.perf_counter() - begin) * 1e3)
        await machine.close()  # the process is to find its ports free, as in a user's shell
        samples.add(TASK, name, "ms", values[1:])  # the first compiles and connects


def environment(home: Home) -> dict[str, str]:
    """Return the environment of a user whose machines are in `home`."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"HOSTCTL_STATE_DIR": str(home.state), "HOSTCTL_RUNTIME_DIR": str(home.runtime)}


def _command() -> list[str]:
    return [str(Path(sys.executable).with_name("hostctl")), "exec", NAME, "--", "true"]


def _run(argv: list[str], home: Home) -> None:
    done = subprocess.run(argv, env=environment(home), capture_output=True, text=True)
    if done.returncode or done.stdout or done.stderr:
        raise SystemExit(f"bench: {argv[0]} failed: {done.stderr.strip()}")
