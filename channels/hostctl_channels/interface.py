"""What a channel is: commands and files of one running guest, whatever carries them.

Machines, hypervisors and sockets are unknown here. Every implementation passes
tests/contract/test_channel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol, TypeAlias

from .errors import CommandFailed, LocalProtocolError

__all__ = [
    "MAX_OUTPUT",
    "STDERR",
    "STDOUT",
    "Buffer",
    "Capability",
    "Channel",
    "Command",
    "ExitStatus",
    "FileInfo",
    "Process",
    "Progress",
    "Pulse",
    "PutOptions",
    "Result",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
Progress: TypeAlias = Callable[[int], None]
"""Called with the bytes moved so far, from the event loop; must not block."""

STDOUT = 1
STDERR = 2
MAX_OUTPUT = (
    64 * 1024 * 1024
)  # what `exec` keeps of each stream: the host memory the project promises for a transfer


class Capability(StrEnum):
    """What a channel may lack. `Channel.capabilities` has those it offers."""

    STREAMS = "streams"  # live stdout and stderr, of any size
    STDIN = "stdin"
    SIGNAL = "signal"  # signals, timeouts, cancelling
    USER = "user"
    USAGE = "usage"
    METADATA = "metadata"  # mode and mtime of a file read
    OWNER = "owner"
    MTIME = "mtime"
    SHA256 = "sha256"
    CLOCK = "clock"
    ENTROPY = "entropy"


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the guest. No shell is involved: `argv[0]` is looked up in the guest's PATH."""

    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    cwd: bytes | None = None
    user: str | None = None
    timeout_s: float | None = None
    usage: bool = False

    @classmethod
    def of(
        cls,
        *argv: str | bytes,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        usage: bool = False,
    ) -> Command:
        """Make a command of text or bytes; text is UTF-8, undecodable bytes survive as surrogates.

        `timeout_s` is enforced in the guest too: TERM, two seconds later KILL. `usage` asks for CPU
        time,
        for about two milliseconds of the guest's. `env` is added to the agent's own environment.

        Raises:
            LocalProtocolError: argv is empty, something holds a NUL, or a variable's name is no
            identifier.
        """
        variables = {_bytes(k): _bytes(v) for k, v in (env or {}).items()}
        where = None if cwd is None else _bytes(cwd)
        command = cls(tuple(map(_bytes, argv)), variables, where, user, timeout_s, usage)
        command._check()
        return command

    def _check(self) -> None:
        if not self.argv or not self.argv[0]:
            raise LocalProtocolError("a command needs at least a program name")
        texts = [*self.argv, *self.env.values(), self.cwd or b"", (self.user or "").encode()]
        if any(b"\0" in text for text in texts):
            raise LocalProtocolError("a command cannot hold a NUL byte")
        if bad := next((k for k in self.env if not _is_identifier(k)), None):
            raise LocalProtocolError(f"not a variable name: {bad!r}")
        if self.timeout_s is not None and not 0 < self.timeout_s < 10**8:
            raise LocalProtocolError(f"not a timeout in seconds: {self.timeout_s}")

    def __str__(self) -> str:
        text = " ".join(word.decode("utf-8", "backslashreplace") for word in self.argv)
        return text if len(text) <= 60 else text[:59] + "…"


def _is_identifier(name: bytes) -> bool:
    return name.isascii() and name.decode().isidentifier()


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a command ended.

    Exactly one of `code` and `signal` is set. Times and memory are None where unknown.
    """

    code: int | None
    signal: int | None = None
    timed_out: bool = False
    user_s: float | None = None
    system_s: float | None = None
    max_rss_bytes: int | None = None

    @property
    def ok(self) -> bool:
        """True for status 0."""
        return self.code == 0

    @property
    def shell_code(self) -> int:
        """The number a shell would show: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    def __str__(self) -> str:
        if self.timed_out:
            return "timed out"
        return f"exit status {self.code}" if self.signal is None else f"signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Result:
    """A command that has ended, with all it printed."""

    command: Command
    exit: ExitStatus
    stdout: bytes
    stderr: bytes
    duration_s: float

    def check(self) -> Result:
        """Return self, or raise CommandFailed unless the status is 0."""
        if self.exit.ok:
            return self
        text = self.stderr.strip().rsplit(b"\n", 1)[-1].decode("utf-8", "backslashreplace")
        last = "".join(c if c.isprintable() else "?" for c in text[:200])
        raise CommandFailed(f"{self.command}: {self.exit}" + (f": {last}" if last else ""), self)


class Process(Protocol):
    """A command that runs. Leaving its context kills it if it still does."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return (STDOUT or STDERR, bytes) as soon as there are any.

        None when both streams have ended.
        """

    async def write(self, data: Buffer) -> None:
        """Send to its standard input. What it will never read is dropped silently."""

    async def close_stdin(self) -> None:
        """End its standard input. Safe to call twice."""

    async def signal(self, name: str) -> None:
        """Send a signal ("TERM", "INT", "KILL"…) to the command and all it started.

        Quiet if it has ended.
        """

    async def wait(self) -> ExitStatus:
        """Wait for the end. Output nobody has read is dropped."""


@dataclass(frozen=True, slots=True)
class PutOptions:
    """What a file put into the guest shall look like.

    None leaves the guest's default (mode 644, now, the agent's user).
    """

    mode: int | None = None
    mtime_s: float | None = None
    owner: str | None = None  # "user" or "user:group"
    verify: str | None = None  # "sha256"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that was moved.

    `mode`, `mtime_s`, `sha256` are None where not asked for or not known.
    """

    size_bytes: int
    mode: int | None = None
    mtime_s: float | None = None
    sha256: str | None = None


class Pulse(Protocol):
    """What the floor above knows of the guest's time, asked several times a second.

    Must be cheap.
    """

    def epoch(self) -> int:
        """Return a number that changes whenever the guest's timeline is cut.

        Start, restore, reset, stop.
        """

    def suspended(self) -> bool:
        """Tell whether the machine is paused, so that silence means nothing."""


class Channel(Protocol):
    """Commands and files of one guest. Safe for many tasks at once."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this guest offers; known once connected."""

    @property
    def is_warm(self) -> bool:
        """Tell whether a request would find a connection in order, without looking at the guest."""

    async def connect(self, timeout_s: float) -> None:
        """Wait until the guest answers.

        Raises ChannelTimeout; ChannelClosed if there is no line at all.
        """

    async def ping(self) -> float:
        """Return the seconds a round trip took."""

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        """Run a command to its end.

        Cancelling kills it in the guest. Raises OutputTooLarge past the limit; with a limit of 0 a
        channel that would have to ask for output does not, and the exit is the guest's last word.
        """

    def spawn(
        self, command: Command, *, stdin: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        """Run a command with live streams."""

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = ...,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Write exactly `size_bytes` of `source` to `path`, which is replaced at the end or left as
        it was.
        """

    async def get(
        self,
        path: bytes,
        sink: BinaryIO,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Write the file at `path` to `sink`.

        After an error `sink` holds a part: the caller drops it.
        """

    async def set_clock(self, unix_s: float) -> None:
        """Set the guest's clock, to the second."""

    async def feed_entropy(self, data: Buffer) -> None:
        """Mix bytes into the guest's random pool."""

    async def close(self) -> None:
        """Give back all ports. Safe to call twice; the channel may be used again."""
