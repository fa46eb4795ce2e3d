"""The guest's side as data: two texts that the guest's `/bin/sh` runs.

The agent (agent.md explains it), and what brings it into a guest that never heard of us.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["agent", "attach_script"]


def agent() -> bytes:
    """Return the agent, one POSIX sh file, ready to be written into a guest."""
    return _text("agent.sh")


def attach_script() -> bytes:
    """Return what starts, stops, installs and removes an agent in a guest; its head says how."""
    return _text("attach.sh")


def _text(name: str) -> bytes:
    return (resources.files(__name__) / name).read_bytes()
