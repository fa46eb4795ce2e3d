"""The guest's side as data.

The agent's text. What runs it is the guest's `/bin/sh`; see agent.md.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["agent"]


def agent() -> bytes:
    """Return the agent, one POSIX sh file, ready to be written into a guest."""
    return (resources.files(__name__) / "agent.sh").read_bytes()
