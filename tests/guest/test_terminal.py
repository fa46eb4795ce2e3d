"""Terminals by the real agent and every tool of this host that makes one."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hostctl_channels.errors import Refused
from hostctl_channels.interface import Capability, Command
from hostctl_channels.terminal import NO_TERMINAL, TOOLS, Size, Terminal, open_terminal
from tests.twin import PtyTwin, SocketTwin

ENOUGH_S = 20
FOUND_AS = {"telnetd": "busybox"}


@pytest.fixture(
    params=[pytest.param(t, marks=pytest.mark.needs(FOUND_AS.get(t, t))) for t in TOOLS]
)
def tool(request: pytest.FixtureRequest) -> str:
    """Return the name of a tool that makes terminals."""
    name: str = request.param
    return name


@asynccontextmanager
async def opened(twin: PtyTwin, tool: str, *argv: str) -> AsyncIterator[Terminal]:
    words = Command.of(*argv).argv if argv else ()
    async with (
        asyncio.timeout(ENOUGH_S),
        open_terminal(twin.channel, Command.of("sh"), words, Size(30, 100), (tool,)) as terminal,
    ):
        yield terminal


async def shown(terminal: Terminal, until: bytes | None = None) -> bytes:
    """Return what it shows, to its end or until something is there."""
    text = b""
    while (until is None or until not in text) and (data := await terminal.read()) is not None:
        text += data
    return text


async def test_a_command_has_a_terminal_of_that_size(guest: PtyTwin, tool: str) -> None:
    line = 'test -t 0 && test -t 1 && test -t 2 && stty size; echo "$1"; exit 7'
    async with opened(guest, tool, "sh", "-c", line, "-", "it's ü") as terminal:
        assert (terminal.tool, terminal.is_real) == (tool, True)
        assert await shown(terminal) == "30 100\r\nit's ü\r\n".encode()
        assert (await terminal.wait()).code == 7


async def test_keys_are_echoed_and_control_c_interrupts(guest: PtyTwin, tool: str) -> None:
    line = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    async with opened(guest, tool, "sh", "-c", line) as terminal:
        await shown(terminal, b"ready")
        await terminal.write(b"x")
        await shown(terminal, b"x")
        await terminal.write(b"\x03")
        assert b"caught" in await shown(terminal)
        assert (await terminal.wait()).code == 5


async def test_a_death_by_control_c_is_told_as_a_shell_does(guest: PtyTwin, tool: str) -> None:
    async with opened(guest, tool, "sh", "-c", "echo ready; exec sleep 60") as terminal:
        await shown(terminal, b"ready")
        await terminal.write(b"\x03")
        assert (await terminal.wait()).code == 130


async def test_the_size_changes_under_the_command(guest: PtyTwin, tool: str) -> None:
    line = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    async with opened(guest, tool, "sh", "-c", line) as terminal:
        await shown(terminal, b"ready\r\n")
        await terminal.resize(11, 22)
        assert await shown(terminal) == b"11 22\r\n"


async def test_every_byte_passes_both_ways(guest: PtyTwin, tool: str) -> None:
    every = bytes(range(256)) + b"\r\r\n\r\0" + b"\xff" * 9
    line = f"stty raw -echo; echo ready; exec head -c {len(every)}"
    async with opened(guest, tool, "sh", "-c", line) as terminal:
        await shown(terminal, b"ready\n")
        await terminal.write(every)
        assert await shown(terminal) == every


async def test_a_flood_arrives_whole(guest: PtyTwin, tool: str) -> None:
    async with opened(guest, tool, "sh", "-c", "stty raw; head -c 300000 /dev/zero") as terminal:
        text = await shown(terminal)
        assert (len(text), text.strip(bytes(1))) == (300_000, b"")


async def test_leaving_ends_what_runs(guest: PtyTwin, tool: str) -> None:
    line = "trap '' HUP; sleep 600 & echo $$; wait"
    async with opened(guest, tool, "sh", "-c", line) as terminal:
        pid = int((await shown(terminal, b"\n")).strip())
    while _is_alive(pid):  # noqa: ASYNC110 nobody tells
        await asyncio.sleep(0.05)
    assert (await guest.channel.exec(Command.of("true"))).exit.ok


async def test_no_words_are_the_users_own_shell(guest: PtyTwin) -> None:
    async with opened(guest, "script") as terminal:
        await terminal.write(b"PS1=; echo =$SHELL=$PWD=$HOME=; exit 4\r")
        import pwd

        me = pwd.getpwuid(os.getuid())
        assert f"={me.pw_shell}={me.pw_dir}={me.pw_dir}=".encode() in await shown(terminal)
        assert (await terminal.wait()).code == 4


async def test_a_guest_with_no_tool_says_so(guest: PtyTwin) -> None:
    with pytest.raises(Refused, match="no tool that makes a terminal"):
        async with opened(guest, "nonesuch", "true"):
            pass
    assert (await guest.channel.exec(Command.of("true"))).exit.ok


async def test_without_a_tool_there_are_plain_streams(guest: PtyTwin) -> None:
    line = "test -t 0 || echo plain; printf 'prompt> ' >&2; cat; exit 6"
    async with opened(guest, NO_TERMINAL, "sh", "-c", line) as terminal:
        assert not terminal.is_real
        text = await shown(terminal, b"prompt> ")
        await terminal.resize(1, 1)
        await terminal.write(b"typed")
        await terminal.close_stdin()
        assert sorted((text + await shown(terminal)).replace(b"\n", b"")) == sorted(
            b"plainprompt> typed"
        )
        assert (await terminal.wait()).code == 6


async def test_busybox_alone_is_enough(folder: Path) -> None:
    twin = PtyTwin("ash", folder)
    try:
        async with (
            asyncio.timeout(ENOUGH_S),
            open_terminal(twin.channel, Command.of("sh"), (b"tty",), Size(), TOOLS) as terminal,
        ):
            assert terminal.tool in ("telnetd", "script")
            assert (await shown(terminal)).startswith(b"/dev/pts/")
    finally:
        await twin.close()


async def test_one_line_is_not_enough(folder: Path) -> None:
    twin = SocketTwin("dash", folder)
    with pytest.raises(Refused, match="live streams") as caught:
        async with open_terminal(twin.channel, Command.of("sh"), (), Size(), TOOLS):
            pass
    assert caught.value.capability == Capability.STREAMS
    await twin.close()


def _is_alive(pid: int) -> bool:
    """Tell whether it runs; one that nobody has buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
