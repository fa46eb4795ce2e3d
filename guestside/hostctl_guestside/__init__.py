"""The guest's side as data: texts that the guest's `/bin/sh` runs.

The agent (agent.md explains it), what brings it into a guest that never heard of us, what keeps
commands that outlive their caller, and what makes terminals and connections there.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = [
    "agent",
    "attach_script",
    "dial_script",
    "job_script",
    "session_script",
    "terminal_script",
    "tree_script",
]


def agent() -> bytes:
    """Return the agent, one POSIX sh file, ready to be written into a guest."""
    return _text("agent.sh")


def attach_script() -> bytes:
    """Return what starts, stops, installs and removes an agent in a guest; its head says how."""
    return _text("attach.sh")


@cache
def job_script() -> bytes:
    """Return what starts and watches jobs in a guest, without its comments: it travels often."""
    return _bare("job.sh")


@cache
def tree_script() -> bytes:
    """Return what takes and gives whole folders in a guest, without its comments."""
    return _bare("tree.sh")


@cache
def terminal_script() -> bytes:
    """Return what makes a terminal in a guest, without its comments."""
    return _bare("terminal.sh")


@cache
def session_script() -> bytes:
    """Return what runs at that terminal, without its comments."""
    return _bare("session.sh")


@cache
def dial_script() -> bytes:
    """Return what connects its streams to a socket in a guest, without its comments."""
    return _bare("dial.sh")


def _bare(name: str) -> bytes:
    return re.sub(rb"(?m)^\s*(#.*)?\n|^\t+", b"", _text(name))


def _text(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
