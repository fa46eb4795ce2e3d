"""Commands through one port: what they get, what they say, how they end."""

import asyncio
import functools
import operator
import os
import time
from pathlib import Path

import pytest

from hostctl_channels.errors import (
    CommandFailed,
    OutputTooLarge,
    Refused,
    RequestFailed,
    SpawnFailed,
)
from hostctl_channels.interface import Capability, Command, Result
from tests.twin import SocketTwin

ALL_BYTES = bytes(range(1, 256))
DUMP = 'for a; do printf "%s\\0" "$a"; done'


async def run(twin: SocketTwin, *argv: str | bytes, **options: object) -> Result:
    return await twin.channel.exec(Command.of(*argv, **options))  # type: ignore[arg-type]  # a shorthand


async def sh(twin: SocketTwin, line: str, **options: object) -> Result:
    return await run(twin, "sh", "-c", line, **options)


async def test_streams_are_apart_and_the_status_is_told(twin: SocketTwin) -> None:
    result = await sh(twin, "printf out; printf err >&2; exit 3")
    assert (result.exit.code, result.exit.signal) == (3, None)
    assert (result.stdout, result.stderr) == (b"out", b"err")
    with pytest.raises(CommandFailed, match="err"):
        result.check()


@pytest.mark.parametrize("code", [0, 1, 127, 128, 130, 137, 143, 255])
async def test_any_exit_status_is_no_signal(twin: SocketTwin, code: int) -> None:
    result = await sh(twin, f"exit {code}")
    assert (result.exit.code, result.exit.signal) == (code, None)


@pytest.mark.parametrize("number", [1, 6, 9, 11, 15])
async def test_death_by_signal_is_no_exit_status(twin: SocketTwin, number: int) -> None:
    result = await sh(twin, f"ulimit -c 0; kill -{number} $$; sleep 9")
    assert (result.exit.code, result.exit.signal) == (None, number)
    assert result.exit.shell_code == 128 + number


@pytest.mark.parametrize("number", [2, 13])
async def test_int_and_pipe_of_its_own_look_like_a_status(twin: SocketTwin, number: int) -> None:
    """No shell says a word of these two, so 128+n stays what it is, unless the host sent it."""
    result = await sh(twin, f"kill -{number} $$; sleep 9")
    assert result.exit.shell_code == 128 + number


async def test_commands_begin_with_no_signal_ignored_or_blocked(twin: SocketTwin) -> None:
    said = (await run(twin, "grep", "^Sig[BI]", "/proc/self/status")).stdout
    assert _masks(said) & ~_masks(Path("/proc/self/status").read_bytes()) == 0


def _masks(status: bytes) -> int:
    """Return the signals blocked or ignored; whoever started us may have begun with some."""
    lines = (line.split() for line in status.splitlines() if line.startswith((b"SigB", b"SigI")))
    return functools.reduce(operator.or_, (int(mask, 16) for _, mask in lines))


async def test_a_signal_before_does_not_colour_a_status_after(twin: SocketTwin) -> None:
    await sh(twin, "kill -9 $$")
    assert (await sh(twin, "exit 137")).exit.code == 137
    await run(twin, "nope-nope")
    assert (await sh(twin, "exit 137")).exit.code == 137


async def test_a_missing_program_is_127_with_words(twin: SocketTwin) -> None:
    result = await run(twin, "nope-nope")
    assert result.exit.code == 127
    assert b"nope-nope" in result.stderr


async def test_a_program_that_may_not_run_is_126(twin: SocketTwin) -> None:
    path = twin.folder / "plain"
    path.write_text("#!/bin/sh\n")
    assert (await run(twin, os.fsencode(path))).exit.code == 126


async def test_argv_takes_all_bytes_and_empty_words(twin: SocketTwin) -> None:
    words = [ALL_BYTES, b"", b"-n", b" ", b"'", b'"$N"', b"\\", b"$(false)`", b"*", b"\n\n", b"\n"]
    result = await run(twin, "sh", "-c", DUMP, "sh", *words)
    assert result.stdout == b"".join(word + b"\0" for word in words)


async def test_env_takes_all_bytes_and_adds_to_the_agents_own(twin: SocketTwin) -> None:
    env = {b"A": ALL_BYTES, b"B": b"", b"C_1": b"x=y"}
    result = await twin.channel.exec(
        Command.of("sh", "-c", 'printf "%s\\0" "$A" "$B" "$C_1" "$PATH"', env=env)
    )
    a, b, c, path, _ = result.stdout.split(b"\0")
    assert (a, b, c) == (ALL_BYTES, b"", b"x=y")
    assert path


async def test_variables_of_the_agent_do_not_reach_commands(twin: SocketTwin) -> None:
    """And a command's variables may have the names of the agent's."""
    names = [
        "LC_ALL",
        "IFS",
        "n",
        "k",
        "l",
        "t",
        "run",
        "id",
        "log",
        "features",
        "in",
        "out",
        "user",
        "s",
        "envs",
    ]
    line = "; ".join(f'echo {name}="${{{name}-unset}}"' for name in names if name != "IFS")
    plain = await sh(twin, line)
    assert set(plain.stdout.split()) == {
        f"{name}=unset".encode() for name in names if name != "IFS"
    }
    env = dict.fromkeys(names, "mine")
    theirs = await sh(twin, line, env=env)
    assert set(theirs.stdout.split()) == {
        f"{name}=mine".encode() for name in names if name != "IFS"
    }
    assert (await sh(twin, "exit 7")).exit.code == 7


async def test_cwd_takes_any_name(twin: SocketTwin) -> None:
    where = os.fsencode(twin.folder) + b"/-a b\n'\"\xff"
    os.mkdir(where)
    assert (await run(twin, "pwd", cwd=where)).stdout == where + b"\n"


async def test_a_missing_cwd_is_enoent_and_nothing_runs(twin: SocketTwin) -> None:
    mark = twin.folder / "ran"
    with pytest.raises(SpawnFailed) as caught:
        await run(twin, "touch", os.fsencode(mark), cwd="/nonexistent dir")
    assert caught.value.errno == 2
    assert "/nonexistent dir" in str(caught.value)
    assert not mark.exists()


@pytest.mark.usefixtures("root")
async def test_user_changes_the_user_and_keeps_words_env_and_cwd(twin: SocketTwin) -> None:
    words = [b"a b", b"'\"\n", b"", b"-c"]
    result = await run(
        twin,
        "sh",
        "-c",
        f'{DUMP}; printf "%s\\0" "$(id -un)" "$X" "$PWD"',
        "sh",
        *words,
        user="nobody",
        env={"X": "y z"},
        cwd="/tmp",
    )
    assert result.stdout.split(b"\0")[:-1] == [*words, b"nobody", b"y z", b"/tmp"]


async def test_an_unknown_user_is_refused(twin: SocketTwin) -> None:
    with pytest.raises(SpawnFailed, match="no-such-user"):
        await run(twin, "true", user="no-such-user")
    assert (await run(twin, "true")).exit.ok


async def test_huge_argv_travels_as_a_body(twin: SocketTwin) -> None:
    words = [bytes([65 + n]) * 100_000 + b"'\n" for n in range(2)]
    result = await run(
        twin, "sh", "-c", 'printf %s "$1$2" | wc -c; printf %s "$2" | tail -c 3', "sh", *words
    )
    assert result.stdout.split(b"\n", 1) == [b"200004", b"B'\n"]


async def test_a_word_beyond_the_kernels_limit_fails_and_the_port_lives(twin: SocketTwin) -> None:
    """MAX_ARG_STRLEN is 128 KiB; busybox runs its own tools without the kernel."""
    result = await run(twin, "/bin/ls", b"x" * 140_000)
    assert not result.exit.ok
    assert result.stderr
    assert (await run(twin, "true")).exit.ok


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_000])
async def test_stdin_of_any_size_arrives_whole(twin: SocketTwin, size: int) -> None:
    data = (ALL_BYTES + b"\0") * (size // 256 + 1)
    result = await twin.channel.exec(Command.of("cat"), input=data[:size])
    assert result.stdout == data[:size]


async def test_without_stdin_a_command_reads_the_end_at_once(twin: SocketTwin) -> None:
    assert (await run(twin, "cat")).stdout == b""


async def test_stdin_to_a_command_that_ends_early_is_dropped(twin: SocketTwin) -> None:
    for line in ("exit 4", "exec <&-; exit 4", "read x; exit 4"):
        result = await twin.channel.exec(Command.of("sh", "-c", line), input=b"y\n" * 300_000)
        assert result.exit.code == 4
    assert (await run(twin, "echo", "ok")).stdout == b"ok\n"


async def test_stdin_that_looks_like_requests_is_data(twin: SocketTwin) -> None:
    data = b"E 0123456789abcdef 0 \nN cdef\n\n" * 10
    result = await twin.channel.exec(Command.of("cat"), input=data)
    assert result.stdout == data


async def test_output_of_any_kind_and_size_is_complete(twin: SocketTwin) -> None:
    path = twin.folder / "blob"
    path.write_bytes(os.urandom(3_000_000) + b"\x9dHR\0" + b"0" * 16)
    result = await sh(twin, f"cat {path}; cat {path} >&2")
    assert result.stdout == result.stderr == path.read_bytes()


async def test_output_beyond_the_limit_is_an_error_and_the_channel_lives(twin: SocketTwin) -> None:
    twin.feels_pipe = False
    with pytest.raises(OutputTooLarge):
        await twin.channel.exec(Command.of("printf", "%0100d", "1"), max_output_bytes=99)
    assert (await run(twin, "echo", "ok")).stdout == b"ok\n"


async def test_a_timeout_ends_the_whole_tree(twin: SocketTwin) -> None:
    begin = time.monotonic()
    result = await sh(twin, "sleep 61 & sleep 62", timeout_s=0.3)
    assert result.exit.timed_out
    assert result.exit.signal == 15
    assert time.monotonic() - begin < 20
    assert not [line for line in twin.family.lines() if line.startswith(("sleep 61", "sleep 62"))]


async def test_a_timeout_kills_what_ignores_term(twin: SocketTwin) -> None:
    result = await sh(twin, "trap '' TERM; while :; do sleep 0.1; done", timeout_s=0.3)
    assert result.exit.timed_out
    assert result.exit.signal == 9


async def test_a_command_within_its_timeout_is_not_timed_out(twin: SocketTwin) -> None:
    result = await sh(twin, "exit 5", timeout_s=9)
    assert result.exit.code == 5
    assert not result.exit.timed_out
    async with asyncio.timeout(10):  # its sleep was killed, and ends when the kernel comes to it
        while any(line.startswith("sleep 9") for line in twin.family.lines()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_usage_tells_cpu_time_only_when_asked(twin: SocketTwin) -> None:
    line = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
    used = (await sh(twin, line, usage=True)).exit
    assert used.user_s is not None
    assert used.system_s is not None
    assert 0.005 < used.user_s + used.system_s < 30
    assert (await sh(twin, "true")).exit.user_s is None


async def test_a_daemon_that_keeps_its_output_does_not_disturb(twin: SocketTwin) -> None:
    twin.leftovers_are_fine = True
    assert (await sh(twin, "echo first; (sleep 2; echo late) & exit 0")).stdout == b"first\n"
    async with asyncio.timeout(20):
        assert (await sh(twin, "echo second")).stdout == b"second\n"


async def test_commands_cannot_reach_the_agents_line(twin: SocketTwin) -> None:
    """No descriptor of a command is the port: what it writes anywhere cannot forge frames."""
    line = "for f in /proc/self/fd/*; do case $(readlink $f) in socket:*) echo $f;; esac; done"
    result = await sh(twin, line)
    assert result.stdout == b""
    fed = await twin.channel.exec(Command.of("sh", "-c", line), input=b"")
    assert fed.stdout == b""


async def test_one_line_has_no_streams_and_no_signals(twin: SocketTwin) -> None:
    await twin.channel.connect(20)
    assert not {Capability.STREAMS, Capability.SIGNAL} & twin.channel.capabilities
    async with twin.channel.spawn(Command.of("sleep", "0.3")) as process:
        with pytest.raises(Refused) as caught:
            await process.signal("TERM")
        assert caught.value.capability == "signal"
        assert (await process.wait()).ok


async def test_ping_clock_and_entropy(twin: SocketTwin) -> None:
    assert 0 < await twin.channel.ping() < 20
    await twin.channel.feed_entropy(os.urandom(1000))
    if os.geteuid() == 0:
        before = time.time()
        await twin.channel.set_clock(before)
        assert abs(time.time() - before) < 30
    else:
        with pytest.raises(RequestFailed) as caught:
            await twin.channel.set_clock(time.time())
        assert caught.value.errno == 1
