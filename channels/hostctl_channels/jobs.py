"""Jobs: commands in the guest that outlive who started them, with what they print kept there.

They need nothing of the channel but `exec`, so every channel has them: guestside's job.sh goes
along with each request. Where the guest lacks what it takes (setsid), the request is refused.

What a guest tells of its jobs is bounded and checked; nothing of it chooses a path on this host.
"""

from __future__ import annotations

import json
import re
import secrets
import signal as signals
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hostctl_guestside import job_script

from .errors import (
    GuestError,
    JobNotFound,
    LocalProtocolError,
    LogCut,
    Refused,
    RemoteProtocolError,
)
from .interface import Buffer, Channel, Command, ExitStatus, Result

__all__ = ["KEEP_BYTES", "PIECE_BYTES", "JobState", "JobStatus", "Jobs", "Piece"]

KEEP_BYTES: Final = 16 << 20  # of each stream: in the guest it is mostly memory
PIECE_BYTES: Final = 1 << 20  # of each stream, at most, in one answer, as job.sh has it
MAX_JOBS: Final = 10_000
_MAX_LIST: Final = 16 << 20
_MAX_FACTS: Final = 4096
_ID: Final = re.compile(r"[a-z0-9]{1,32}")
_ENDED, _UNKNOWN, _RUNS, _SHORTER, _REFUSED = 80, 81, 82, 83, 84
_LINE: Final = re.compile(
    rb"(?P<id>[a-z0-9]{1,32}) (?P<state>running|ended|lost) (?P<start>\d{1,12}|-)"
    rb" (?P<code>\d{1,3}|-) (?P<signal>\d{1,3}|-) (?P<late>[01]) (?P<end>\d{1,12}|-)"
    rb" (?P<user>\d{1,7}m\d{1,2}\.\d{1,6}s|-) (?P<system>\d{1,7}m\d{1,2}\.\d{1,6}s|-)"
    rb" (?P<out>\d{1,18}) (?P<err>\d{1,18}) (?P<out_cut>[01]) (?P<err_cut>[01]) (?P<facts>[ -~]*)"
)


class JobState(StrEnum):
    """Where a job is. LOST: what watched it was killed, so that nobody knows how it ended."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as the guest tells it. Times are the guest's clock, in Unix seconds."""

    id: str
    state: JobState
    exit: ExitStatus | None
    argv: tuple[str, ...]
    started_s: int | None
    ended_s: int | None
    stdout_bytes: int
    stderr_bytes: int
    stdout_cut: bool  # it printed more than is kept
    stderr_cut: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """What a job printed from two offsets on; `is_last` when it has ended and all has been read."""

    stdout: bytes
    stderr: bytes
    is_last: bool


class Jobs:
    """The jobs of one guest, over one channel. Each method is one request."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def spawn(
        self, command: Command, *, keep_bytes: int = KEEP_BYTES, input: Buffer | None = None
    ) -> str:
        """Start a command; return its id as soon as the guest has it.

        Up to `keep_bytes` of each stream are kept, in the guest's /run; `input` is its standard
        input, which is empty otherwise.

        Raises:
            Refused: the guest has no setsid, no such user, or no room. Nothing runs.
        """
        if keep_bytes < 1024:
            raise LocalProtocolError(
                f"a job's log cannot be kept to {keep_bytes} bytes; 1024 is least"
            )
        job = secrets.token_hex(4)
        seconds = "" if command.timeout_s is None else f"{command.timeout_s:g}"
        words = (job, str(keep_bytes), seconds, command.user or "", "" if input is None else "1")
        carrier = Command.of(
            *_words("spawn", *words, _facts(command)),
            *command.argv,
            env=command.env,
            cwd=command.cwd,
        )
        _settled(await self._channel.exec(carrier, input=input), job)
        return job

    async def list(self) -> tuple[JobStatus, ...]:
        """Return every job that the guest still knows, in the order of their starts."""
        command = Command.of(*_words("list"))
        done = await self._channel.exec(command, max_output_bytes=_MAX_LIST)
        found = map(_parse, _settled(done).stdout.splitlines()[:MAX_JOBS])
        return tuple(sorted(found, key=lambda job: (job.started_s or 0, job.id)))

    async def look(self, job: str, wait_s: float = 0) -> JobStatus:
        """Return its state, as soon as it does not run any more, or after `wait_s`."""
        done = await self._ask("look", job, str(round(wait_s)))
        return _parse(done.stdout.rstrip(b"\n"))

    async def read(self, job: str, stdout: int, stderr: int, wait_s: float = 0) -> Piece:
        """Return what it printed from these offsets on; wait up to `wait_s` for something new.

        Raises:
            LogCut: less than that is kept: the guest went back to an earlier snapshot.
        """
        offsets = (str(stdout), str(stderr), str(round(wait_s)))
        done = await self._ask("read", job, *offsets)
        return Piece(done.stdout, done.stderr, done.exit.code == _ENDED)

    async def signal(self, job: str, name: str) -> None:
        """Send a signal ("TERM", "KILL"…) to all of its process group; quiet when it has ended."""
        number = getattr(signals, f"SIG{name}", None)
        if not isinstance(number, signals.Signals):
            raise LocalProtocolError(f"not a signal: {name!r}")
        await self._ask("signal", job, name)

    async def forget(self, job: str, *, force: bool = False) -> None:
        """Remove what is kept of it. One that runs is killed first with `force`, else left alone.

        Raises:
            GuestError: it runs.
        """
        await self._ask("forget", job, *(("force",) if force else ()))

    async def _ask(self, verb: str, job: str, *words: str) -> Result:
        if not _ID.fullmatch(job):
            raise LocalProtocolError(f"not the id of a job: {job!r}")
        return _settled(await self._channel.exec(Command.of(*_words(verb, job, *words))), job)


def _words(verb: str, *words: str) -> tuple[str | bytes, ...]:
    return ("sh", "-c", 'eval "$1"', "job", job_script(), verb, *words)


def _facts(command: Command) -> str:
    """Write what the guest shall remember for us: as much of argv as fits into a short line."""
    argv = [word.decode("utf-8", "backslashreplace")[:200] for word in command.argv[:20]]
    while len(text := json.dumps({"argv": argv})) > _MAX_FACTS:
        argv.pop()
    return text


def _settled(done: Result, job: str = "") -> Result:
    """Return an answer, or raise what it means."""
    code = done.exit.code
    if code in (0, _ENDED):
        return done
    said = done.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2][:200]
    why = "".join(c if c.isprintable() else "?" for c in said)
    if code == _UNKNOWN:
        raise JobNotFound(job)
    if code == _RUNS:
        raise GuestError(f"job {job}: it still runs", hint="signal it first, or force it")
    if code == _SHORTER:
        raise LogCut(f"job {job}: {why}", hint="the guest went back to an earlier snapshot")
    if code == _REFUSED:
        raise Refused(f"the guest cannot do this for a job: {why}", "jobs")
    raise GuestError(
        f"the guest's shell failed with a job: {done.exit}" + (f": {why}" if why else "")
    )


def _parse(line: bytes) -> JobStatus:
    match = _LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError(f"not the state of a job: {line[:100]!r}")
    state = JobState(match["state"].decode())
    return JobStatus(
        id=match["id"].decode(),
        state=state,
        exit=_exit(match) if state is JobState.ENDED else None,
        argv=_argv(match["facts"]),
        started_s=_number(match["start"]),
        ended_s=_number(match["end"]),
        stdout_bytes=int(match["out"]),
        stderr_bytes=int(match["err"]),
        stdout_cut=match["out_cut"] == b"1",
        stderr_cut=match["err_cut"] == b"1",
    )


def _exit(match: re.Match[bytes]) -> ExitStatus:
    code, signal = _number(match["code"]), _number(match["signal"]) or None
    if code is None or code > 255:
        raise RemoteProtocolError(f"not an exit status: {match['code']!r}")
    return ExitStatus(
        code=None if signal else code,
        signal=signal,
        timed_out=match["late"] == b"1",
        user_s=_seconds(match["user"]),
        system_s=_seconds(match["system"]),
    )


def _argv(facts: bytes) -> tuple[str, ...]:
    """Read what we once wrote; a guest may have changed it."""
    try:
        argv = json.loads(facts[:_MAX_FACTS])["argv"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(argv) if isinstance(argv, list) and all(isinstance(w, str) for w in argv) else ()


def _number(text: bytes) -> int | None:
    return None if text == b"-" else int(text)


def _seconds(text: bytes) -> float | None:
    minutes, _, rest = text.partition(b"m")
    return None if text == b"-" else int(minutes) * 60 + float(rest.rstrip(b"s"))
