"""Jobs by the real script under every shell: how they start, what is kept, how they end."""

import asyncio
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from hostctl_channels.errors import GuestError, JobNotFound, LocalProtocolError, LogCut, Refused
from hostctl_channels.interface import MAX_OUTPUT, Buffer, Command, ExitStatus, Result
from hostctl_channels.jobs import PIECE_BYTES, Jobs, JobState, JobStatus
from tests.twin import SHELLS, twin_path

ENOUGH_S = 20


class Host:
    """A guest that is this host, with one shell as its `sh`; only `exec` of a Channel."""

    def __init__(self, shell: str, folder: Path) -> None:
        tools = folder / "tools"
        tools.mkdir()
        name = SHELLS[shell][0]
        path = twin_path(shell, folder)
        if shell != "ash":
            (tools / "sh").symlink_to(_which(name))
            path = f"{tools}:{path}"
        self.home = folder / "jobs"
        self.environ = {"PATH": path, "HOSTCTL_JOBS": str(self.home), "HOME": str(folder)}

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        env = self.environ | {k.decode(): v.decode() for k, v in command.env.items()}
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=command.cwd,
        )
        out, err = await process.communicate(None if input is None else bytes(input))
        code = process.returncode
        assert code is not None
        end = ExitStatus(code) if code >= 0 else ExitStatus(None, -code)
        return Result(command, end, out, err, 0)


def _which(name: str) -> str:
    import shutil

    path = shutil.which(name)
    assert path
    return os.path.realpath(path)


@pytest.fixture
def host(shell: str, folder: Path) -> Host:
    return Host(shell, folder)


@pytest.fixture
def jobs(host: Host) -> Jobs:
    return Jobs(host)  # type: ignore[arg-type]  # all that it needs of a channel


async def start(jobs: Jobs, line: str, **options: object) -> str:
    keep = options.pop("keep_bytes", 1 << 20)
    input = options.pop("input", None)
    command = Command.of("sh", "-c", line, **options)  # type: ignore[arg-type]  # a shorthand
    return await jobs.spawn(command, keep_bytes=keep, input=input)  # type: ignore[arg-type]


async def ended(jobs: Jobs, line: str, **options: object) -> JobStatus:
    status = await jobs.look(await start(jobs, line, **options), ENOUGH_S)
    assert status.state is JobState.ENDED
    return status


async def printed(jobs: Jobs, job: str) -> tuple[bytes, bytes]:
    await jobs.look(job, ENOUGH_S)
    piece = await jobs.read(job, 0, 0)
    assert piece.is_last
    return piece.stdout, piece.stderr


async def test_it_goes_on_when_its_starter_has_left(jobs: Jobs, folder: Path) -> None:
    word = folder / "go"
    wait = f"until [ -e {word} ]; do sleep 0.1; done"
    job = await start(jobs, f"echo begun; {wait}; echo over; echo bad >&2; exit 7")
    status = await jobs.look(job)
    assert (status.state, status.exit) == (JobState.RUNNING, None)
    word.touch()
    status = await jobs.look(job, ENOUGH_S)
    assert status.exit
    assert (status.exit.code, status.exit.signal) == (7, None)
    assert await printed(jobs, job) == (b"begun\nover\n", b"bad\n")
    assert (status.stdout_bytes, status.stderr_bytes) == (11, 4)


async def test_the_list_tells_what_runs_and_what_has_ended(jobs: Jobs) -> None:
    assert await jobs.list() == ()
    first, second = await start(jobs, "exit 3"), await start(jobs, "sleep 60 # ;'\"$x\n\u20ac")
    await jobs.look(first, ENOUGH_S)
    found = {job.id: job for job in await jobs.list()}
    assert found[first].exit == ExitStatus(3, user_s=0, system_s=0) or found[first].exit
    assert found[second].state is JobState.RUNNING
    assert found[second].argv == ("sh", "-c", "sleep 60 # ;'\"$x\n\u20ac")
    now = time.time()
    assert now - ENOUGH_S < (found[second].started_s or 0) <= now + 1
    await jobs.forget(second, force=True)
    assert [job.id for job in await jobs.list()] == [first]


async def test_any_exit_status_is_no_signal(jobs: Jobs) -> None:
    codes = [0, 1, 127, 137, 255]
    found = await asyncio.gather(*(ended(jobs, f"exit {code}") for code in codes))
    assert [each.exit and (each.exit.code, each.exit.signal) for each in found] == [
        (code, None) for code in codes
    ]


async def test_death_by_signal_is_no_exit_status(jobs: Jobs) -> None:
    numbers = [6, 9, 11, 15]
    lines = [f"ulimit -c 0; kill -{number} $$; sleep 9" for number in numbers]
    found = await asyncio.gather(*(ended(jobs, line) for line in lines))
    assert [each.exit and (each.exit.code, each.exit.signal) for each in found] == [
        (None, number) for number in numbers
    ]


async def test_signals_reach_all_of_its_group(jobs: Jobs, tmp_path: Path) -> None:
    async def signalled(name: str) -> int | None:
        note = tmp_path / name
        # What a shell starts by & is deaf to INT, but not what it runs in a pipeline.
        job = await start(jobs, f"sh -c 'echo $$ >{note}; exec sleep 61' | cat")
        while not note.exists() or not note.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await jobs.signal(job, name)
        status = await jobs.look(job, ENOUGH_S)
        await jobs.signal(job, name)  # quiet when it has ended
        child = Path("/proc", note.read_text().strip())
        while child.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return status.exit.signal if status.exit else None

    names = ["TERM", "INT", "KILL", "USR1"]
    expected = [getattr(signal, f"SIG{name}") for name in names]
    assert await asyncio.gather(*map(signalled, names)) == expected


async def test_time_limits_are_kept_in_the_guest(jobs: Jobs) -> None:
    began = time.monotonic()
    end = (await ended(jobs, "sleep 60", timeout_s=1)).exit
    assert end
    assert end.timed_out
    assert time.monotonic() - began < ENOUGH_S
    end = (await ended(jobs, "exit 5", timeout_s=60)).exit
    assert end
    assert (end.code, end.timed_out) == (5, False)


async def test_input_environment_and_folder(jobs: Jobs, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    job = await start(
        jobs, 'cat; echo "$X $PWD" >&2', input=data, env={"X": "a'b"}, cwd=str(tmp_path)
    )
    assert await printed(jobs, job) == (data, f"a'b {tmp_path}\n".encode())
    job = await start(jobs, "cat; umask; echo $#")
    mask, count = (await printed(jobs, job))[0].split()
    assert (int(mask, 8), count) == (0o022, b"0")


async def test_argv_arrives_as_it_is(jobs: Jobs) -> None:
    words = ("printf", "%s|", "a b", "", "'", '"', "$x", "*", "-n", "\\", "\n", "€")
    job = await jobs.spawn(Command.of(*words))
    out, _ = await printed(jobs, job)
    assert out.decode() == "".join(f"{word}|" for word in words[2:])


async def test_what_does_not_exist_ends_as_in_a_shell(jobs: Jobs) -> None:
    job = await jobs.spawn(Command.of("no-such-command"))
    status = await jobs.look(job, ENOUGH_S)
    assert status.exit
    assert status.exit.code == 127
    assert b"no-such-command" in (await printed(jobs, job))[1]


async def test_reading_goes_on_where_it_was_and_waits_for_more(jobs: Jobs) -> None:
    job = await start(jobs, "printf one; sleep 2; printf two; sleep 60")
    piece = await jobs.read(job, 0, 0, ENOUGH_S)
    assert (piece.stdout, piece.is_last) == (b"one", False)
    piece = await jobs.read(job, 3, 0)
    assert (piece.stdout, piece.is_last) == (b"", False)
    piece = await jobs.read(job, 3, 0, ENOUGH_S)
    assert (piece.stdout, piece.is_last) == (b"two", False)
    await jobs.forget(job, force=True)


async def test_a_long_log_comes_in_pieces(jobs: Jobs) -> None:
    job = await start(
        jobs, "head -c 2500000 /dev/zero | tr '\\0' x; printf end", keep_bytes=1 << 22
    )
    await jobs.look(job, ENOUGH_S)
    sizes, at, is_last = [], 0, False
    digest = hashlib.sha256()
    while not is_last:
        piece = await jobs.read(job, at, 0)
        digest.update(piece.stdout)
        sizes.append(len(piece.stdout))
        at, is_last = at + len(piece.stdout), piece.is_last
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 2_500_003 - 2 * PIECE_BYTES]
    assert digest.digest() == hashlib.sha256(b"x" * 2_500_000 + b"end").digest()


async def test_what_is_too_long_is_cut_and_the_command_does_not_notice(jobs: Jobs) -> None:
    line = "head -c 300000 /dev/zero; echo $? >&2; head -c 300000 /dev/zero && echo all >&2"
    status = await ended(jobs, line, keep_bytes=100 * 1024)
    assert status.exit
    assert status.exit.ok
    assert (status.stdout_bytes, status.stdout_cut) == (100 * 1024, True)
    assert (await printed(jobs, status.id))[1] == b"0\nall\n"
    assert not status.stderr_cut


async def test_what_it_leaves_behind_does_not_make_it_run(jobs: Jobs, host: Host) -> None:
    began = time.monotonic()
    status = await ended(jobs, "(sleep 40; echo late) & echo over")
    assert time.monotonic() - began < 39
    assert (await printed(jobs, status.id))[0] == b"over\n"


async def test_its_cpu_time_is_told(jobs: Jobs) -> None:
    line = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"
    end = (await ended(jobs, line)).exit
    assert end
    assert end.user_s is not None
    assert 0.02 < end.user_s < 20


async def test_a_killed_keeper_is_told_as_lost(jobs: Jobs, host: Host) -> None:
    job = await start(jobs, "sleep 62")
    keeper = int((host.home / job / "keeper").read_text().split()[0])
    child = int((host.home / job / "pid").read_text())
    os.kill(keeper, signal.SIGKILL)
    for inner in Path("/proc").glob("[0-9]*/stat"):  # the rest of its session
        try:
            fields = inner.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == keeper and int(inner.parent.name) != child:
            os.kill(int(inner.parent.name), signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    status = await jobs.look(job, ENOUGH_S)
    assert (status.state, status.exit) == (JobState.LOST, None)
    await jobs.forget(job)


async def test_what_cannot_be_is_refused(jobs: Jobs, host: Host) -> None:
    with pytest.raises(JobNotFound):
        await jobs.look("0badf00d")
    with pytest.raises(LocalProtocolError):
        await jobs.look("../x")
    job = await start(jobs, "sleep 60")
    with pytest.raises(GuestError, match="still runs"):
        await jobs.forget(job)
    with pytest.raises(LocalProtocolError, match="not a signal"):
        await jobs.signal(job, "NONE; rm")
    with pytest.raises(LogCut):
        await jobs.read(job, 10, 0)
    await jobs.forget(job, force=True)
    with pytest.raises(JobNotFound):
        await jobs.forget(job)
    with pytest.raises(Refused, match="no user"):
        await start(jobs, "id", user="no-such-user")
    assert await jobs.list() == ()


async def test_without_setsid_there_are_no_jobs(folder: Path) -> None:
    host = Host("dash", folder)
    bare = folder / "bare"
    bare.mkdir()
    for name in ("sh", "id"):
        (bare / name).symlink_to(_which_in(host.environ["PATH"], name))
    host.environ["PATH"] = str(bare)
    with pytest.raises(Refused, match="setsid"):
        await start(Jobs(host), "true")  # type: ignore[arg-type]


def _which_in(path: str, name: str) -> str:
    import shutil

    found = shutil.which(name, path=path)
    assert found
    return found
