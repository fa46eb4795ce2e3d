"""What the agent may cost: bytes, and processes per request (a fork is 5 ms of a TCG guest)."""

import io
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hostctl_channels.interface import Command, PutOptions
from hostctl_guestside import agent, tree_script
from tests.twin import SocketTwin

MAX_AGENT = 12_400
MAX_TREE = 8 * 1024  # a serial line carries some 10 KiB a second
TRACE = "--trace=clone,clone3,fork,vfork"


def test_the_agent_fits_in_its_budget() -> None:
    assert len(agent()) <= MAX_AGENT


def test_what_travels_with_each_request_of_a_tree_is_small() -> None:
    assert len(tree_script()) <= MAX_TREE


@pytest.mark.needs("strace")
async def test_forks_per_request(shell: str, folder: Path) -> None:
    log = folder / "strace"
    strace = shutil.which("strace")
    assert strace
    twin = SocketTwin(shell, folder, wrapper=(strace, "-f", "-qq", "-o", str(log), TRACE))
    channel, path = twin.channel, str(folder / "file").encode()

    async def put(options: PutOptions) -> None:
        await channel.put(io.BytesIO(b"x" * 1000), 1000, path, options)

    async def forks(request: Callable[[], Awaitable[object]]) -> int:
        before = _count(log)
        await request()
        return _count(log) - before

    try:
        await channel.ping()
        program = shutil.which("true") or "/bin/true"
        cost = {
            "ping": await forks(channel.ping),
            "exec": await forks(lambda: channel.exec(Command.of(program))),
            "put": await forks(lambda: put(PutOptions())),
            "put with mode": await forks(lambda: put(PutOptions(mode=0o755))),
            "get": await forks(lambda: channel.get(path, io.BytesIO())),
        }
    finally:
        twin.leftovers_are_fine = True  # strace itself may be the last to go
        await twin.close()
    # mksh has no printf of its own: frames, notes, and the ends of bodies are processes there.
    frames = (1, 1, 2, 2, 3) if shell == "mksh" else (0, 0, 0, 0, 0)
    own = dict(zip(cost, (0, 1, 2, 3, 1), strict=True))
    assert cost == {k: n + own[k] for k, n in zip(cost, frames, strict=True)}


def _count(log: Path) -> int:
    """Count the calls that succeeded; an interrupted one is written in two lines."""
    return len(re.findall(r"= [1-9][0-9]*$", log.read_text(), re.MULTILINE))
