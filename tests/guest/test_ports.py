"""The agent on many ports: live streams, signals, many at once, new ports, dead workers."""

import asyncio
import os
import signal

import pytest

from hostctl_channels.errors import ChannelReset
from hostctl_channels.interface import STDERR, STDOUT, Command, Process
from tests.twin import Family, PtyTwin


def sh(line: str) -> Command:
    return Command.of("sh", "-c", line)


async def running(process: Process) -> None:
    """Wait until a command that says "on" first has said it."""
    piece = await process.read()
    assert piece
    assert piece[1].startswith(b"on\n")


def sleepers(family: Family, *seconds: int) -> list[str]:
    """Return who sleeps so many seconds; busybox may run a tool without a name of its own."""
    wanted = {f"sleep {n}" for n in seconds}
    return sorted(line.strip() for line in family.lines() if line.strip() in wanted)


async def asleep(family: Family, *seconds: int) -> None:
    """Wait until all these sleep: a child that is born during a signal may miss it."""
    async with asyncio.timeout(20):
        while len(sleepers(family, *seconds)) < len(seconds):  # noqa: ASYNC110 others make it so
            await asyncio.sleep(0.02)


async def gone(family: Family, *seconds: int) -> None:
    """Wait until none of these sleeps: who was killed may be seen for a moment still."""
    async with asyncio.timeout(20):
        while sleepers(family, *seconds):  # noqa: ASYNC110 others make it so
            await asyncio.sleep(0.02)


async def test_streams_are_live_and_apart(ports: PtyTwin) -> None:
    line = "echo 1; read x; echo 2 >&2; read x; echo 3"
    async with ports.channel.spawn(sh(line), stdin=True) as process:
        for number, text in ((STDOUT, b"1\n"), (STDERR, b"2\n"), (STDOUT, b"3\n")):
            assert await process.read() == (number, text)
            await process.write(b"\n")
        await process.close_stdin()
        assert await process.read() is None
        assert (await process.wait()).ok


async def test_large_output_on_both_streams_is_complete(ports: PtyTwin) -> None:
    path = ports.folder / "blob"
    path.write_bytes(os.urandom(400_000))
    result = await ports.channel.exec(sh(f"cat {path} >&2 & cat {path}; wait"))
    assert result.stdout == result.stderr == path.read_bytes()


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize(("name", "number"), [("INT", 2), ("TERM", 15), ("KILL", 9), ("HUP", 1)])
async def test_a_signal_reaches_the_command(
    ports: PtyTwin, name: str, number: int, fed: bool
) -> None:
    async with ports.channel.spawn(sh("echo on; sleep 60"), stdin=fed) as process:
        await asleep(ports.family, 60)
        await process.signal(name)
        status = await process.wait()
    assert (status.code, status.signal) == (None, number)
    await gone(ports.family, 60)


async def test_signals_reach_the_tree_and_spare_what_an_earlier_command_left(
    ports: PtyTwin,
) -> None:
    await ports.channel.exec(
        sh("sleep 40 >/dev/null 2>&1 & setsid sleep 41 >/dev/null 2>&1 & exit 0")
    )
    await asyncio.sleep(0.05)  # ages are known by the tick of 10 ms: of one tick is of one command
    tree = "echo on; sleep 60 & (sleep 61 & setsid sleep 62 & sleep 63) & sleep 64"
    for name in ("TERM", "KILL"):
        async with ports.channel.spawn(sh(tree)) as process:
            await asleep(ports.family, 60, 61, 62, 63, 64)
            await process.signal(name)
            await process.wait()
    async with ports.channel.spawn(sh(f"trap '' TERM INT; {tree}")) as process:
        await asleep(ports.family, 60, 61, 62, 63, 64)  # leaving kills
    await gone(ports.family, 60, 61, 62, 63, 64)
    assert sleepers(ports.family, 40, 41) == ["sleep 40", "sleep 41"]
    ports.leftovers_are_fine = True


async def test_a_command_may_catch_a_signal(ports: PtyTwin) -> None:
    line = "trap 'echo caught; exit 9' TERM; echo on; while :; do sleep 0.1; done"
    async with ports.channel.spawn(sh(line)) as process:
        await running(process)
        await process.signal("TERM")
        said = b""  # its shell may say on stderr that sleep was ended: that had the signal, too
        while piece := await process.read():
            said += piece[1] if piece[0] == STDOUT else b""
        assert said == b"caught\n"
        assert (await process.wait()).code == 9


async def test_cancelling_kills_the_command(ports: PtyTwin) -> None:
    task = asyncio.ensure_future(ports.channel.exec(sh("sleep 60 & sleep 61")))
    await asleep(ports.family, 60, 61)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(ports.family, 60, 61)
    assert (await ports.channel.exec(sh("echo ok"))).stdout == b"ok\n"


async def test_a_cancelled_writer_leaves_the_port_in_order(ports: PtyTwin) -> None:
    """A frame begun is sent whole: a guest that counts would else wait for the rest for ever."""
    async with ports.channel.spawn(sh("sleep 1; exit 3"), stdin=True) as process:
        writing = asyncio.ensure_future(process.write(bytes(2_000_000)))
        await asyncio.sleep(0.2)
        writing.cancel()
        assert (await process.wait()).code == 3
    for _ in range(3):
        result = await ports.channel.exec(Command.of("cat"), input=b"next")
        assert result.stdout == b"next"


async def test_two_read_tasks_in_a_row_lose_nothing(ports: PtyTwin) -> None:
    line = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.03; done"
    got = b""
    async with ports.channel.spawn(sh(line)) as process:
        while True:
            reading = asyncio.ensure_future(process.read())
            await asyncio.wait([reading], timeout=0.004)
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            elif (piece := reading.result()) is None:
                break
            else:
                got += piece[1]
    assert got.split() == [b"%d" % n for n in range(1, 10)]


async def test_four_commands_at_once_and_more_wait(ports: PtyTwin) -> None:
    ports.pool = ports.new_pool()
    results = await asyncio.gather(*(ports.channel.exec(sh(f"echo {n}")) for n in range(8)))
    assert [r.stdout for r in results] == [f"{n}\n".encode() for n in range(8)]


async def test_a_killed_worker_is_told_and_replaced(ports: PtyTwin) -> None:
    async with ports.channel.spawn(sh("echo on $PPID; sleep 60")) as process:
        piece = await process.read()
        assert piece
        os.kill(int(piece[1].split()[1]), signal.SIGKILL)
        with pytest.raises(ChannelReset):
            async with asyncio.timeout(40):
                await process.wait()
    ports.leftovers_are_fine = True  # what it ran is nobody's now
    assert (await ports.channel.exec(sh("echo ok"))).stdout == b"ok\n"


async def test_a_new_port_is_served_after_a_rescan(ports: PtyTwin) -> None:
    await ports.channel.connect(30)
    name = "org.hostctl.7"
    ports.add(name)
    ports.names = (*ports.names, name)
    await ports.channel.rescan()
    lease = await ports.new_pool().lease([name], 1)
    buffer = bytearray(100)
    async with asyncio.timeout(20):
        assert await lease.link.receive_into(buffer)
    assert buffer.startswith(b"\x9dHR\0")
    lease.release(clean=True)


async def test_every_last_letter_arrives_at_once(ports: PtyTwin) -> None:
    """One of them is the first of the nonce that will end the stream."""
    line = "for c in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do printf $c; read -r _; done"
    async with asyncio.timeout(30):
        async with ports.channel.spawn(Command.of("sh", "-c", line), stdin=True) as process:
            for letter in "0123456789abcdef":
                assert await process.read() == (1, letter.encode())
                await process.write(b"\n")
            assert (await process.wait()).ok
