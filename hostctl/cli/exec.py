"""`hostctl exec`: a command in a machine, as if it ran here.

Bytes pass as they come, both ways; signals go in, the exit status comes out. The pieces: `Taps`
(our stdout and stderr), `feed` (our stdin), `Relay` (our signals). Several machines at once, and
JSON, are exec_many.py's.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from hostctl.machine import Machine
from hostctl_channels.errors import ChannelError, GuestError
from hostctl_channels.interface import ExitStatus, Process

from . import opening, render, several, units
from .exits import Exit, UsageError

# One frame of the wire, for each costs the guest a fork; our pipe is widened to it.
STDIN_CHUNK: Final = 1 << 20
Feed = Callable[[Process], Coroutine[Any, Any, None]]  # carries input to a command
_NOT_FOUND: Final = 127  # as the guest's shell has it
_RELAYED: Final = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP"}


def exec_(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    argv = guest_argv(args.command, shell=args.shell)
    env = dict(map(parse_env, args.env))
    if args.tty:
        if args.detach:
            raise UsageError("exec: --tty does not go with --detach: a job has no terminal")
        from . import shell

        return shell.run_at_terminal(args, argv, env)
    if args.detach:
        from . import jobs

        return jobs.start(args, argv, env)
    if args.keep is not None:
        raise UsageError("exec: --keep goes with --detach")
    if args.json or several.is_group([args.name]):
        from . import exec_many

        return exec_many.run(args, argv, env)
    code = opening.run(_exec(args, argv, env))
    if code == _NOT_FOUND and "--" in args.command:
        render.say(f"several machines are one word: {args.name},{args.command[0]} before the --")
    return code


def guest_argv(words: list[str], *, shell: bool) -> tuple[bytes, ...]:
    """Return the guest's words as the bytes they were typed in.

    Raises:
        UsageError: there are none.
    """
    if not words:
        raise UsageError("exec: no command given; write it after --, as in: exec NAME -- uname -a")
    argv = ("/bin/sh", "-c", " ".join(words)) if shell else tuple(words)
    return tuple(map(os.fsencode, argv))


def parse_env(text: str) -> tuple[bytes, bytes]:
    """Read `KEY=VALUE`, or `KEY` for the value it has here.

    Raises:
        UsageError: no key, or nothing of that name here.
    """
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"exec: --env {text}: no name before the =; write KEY=VALUE")
    if not equals:
        if key not in os.environ:
            raise UsageError(f"exec: --env {key}: not set here; write {key}=VALUE")
        value = os.environ[key]
    return os.fsencode(key), os.fsencode(value)


def exit_code(status: ExitStatus) -> int:
    """Return what the shell shall see of the guest's exit status."""
    return Exit.COMMAND_TIMED_OUT if status.timed_out else status.shell_code


async def _exec(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    async with opening.open_controller() as controller:
        machine = opening.machine(controller, args.name, args.channel)
        machine.steal = args.steal
        return await relayed(args, machine, argv, env)


async def relayed(
    args: argparse.Namespace, machine: Machine, argv: tuple[bytes, ...], env: dict[bytes, bytes]
) -> int:
    """Run a command as if it ran here, and return its exit code; our signals are its own."""
    with Relay() as relay:
        try:
            status = await _converse_with(args, machine, argv, env, relay)
        except asyncio.CancelledError:
            if relay.ended_by is None:
                raise
            return relay.ended_by
    if status.timed_out:
        limit = units.show_duration(args.timeout_s or 0)
        render.say(f"exec on {machine.name}: timed out after {limit}, the command was killed")
    return exit_code(status)


async def _converse_with(
    args: argparse.Namespace,
    machine: Machine,
    argv: tuple[bytes, ...],
    env: dict[bytes, bytes],
    relay: "Relay",
) -> ExitStatus:
    async with machine.process(
        *argv,
        stdin=args.interactive,
        env=env or None,
        cwd=args.workdir,
        user=args.user,
        timeout_s=args.timeout_s,
    ) as process:
        relay.attach(process)
        return await converse(process, Taps(), feed if args.interactive else None)


async def converse(process: Process, taps: "Tap", feed: Feed | None) -> ExitStatus:
    """Carry the three streams until the command ended and its output is written."""
    feeder = asyncio.create_task(feed(process)) if feed else None
    try:
        while (piece := await process.read()) is not None:
            await taps.write(*piece)
        return await process.wait()
    finally:
        if feeder is not None:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeder


async def feed(process: Process) -> None:
    """Carry our stdin to the command, no faster than it reads."""
    with contextlib.suppress(OSError, AttributeError):  # no pipe, no room for wide ones, no Linux
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, STDIN_CHUNK)
    try:
        while chunk := await read_stdin():
            await process.write(chunk)
        await process.close_stdin()
    except (ChannelError, GuestError):
        # The command is over, or its line is cut: whoever reads its output will tell which.
        return


async def read_stdin() -> bytes:
    """Read what there is on our stdin, nothing at its end.

    The descriptor stays blocking: it is not ours alone.
    """
    while sys.stdin is not None:  # closed before we began; 0 is somebody else's by now
        try:
            await _stdin_ready()
            return os.read(0, STDIN_CHUNK)
        except BlockingIOError:  # whoever shares the descriptor read it first
            continue
        except OSError:  # a folder, or a terminal that is not ours any more: there is no input
            break
    return b""


async def _stdin_ready() -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(0, _settle, ready)
    except PermissionError:  # epoll refuses regular files and /dev/null, which never block
        return
    try:
        await ready
    finally:
        loop.remove_reader(0)


class Tap(Protocol):
    """Where output goes."""

    async def write(self, fd: int, chunk: bytes) -> None:
        """Write it all."""


class Taps:
    """Our stdout and stderr: unbuffered, and never holding up the loop for a slow reader.

    A pipe that poll calls writable takes PIPE_BUF bytes without blocking, so short pieces are
    written at once; longer ones, and those for a full pipe, go through a thread.
    """

    async def write(self, fd: int, chunk: bytes) -> None:
        """Write it all.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        if len(chunk) <= select.PIPE_BUF and select.select((), (fd,), (), 0)[1]:
            _write_all(fd, chunk)
        else:
            await _in_daemon_thread(fd, chunk)


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
            select.select((), (fd,), ())


async def _in_daemon_thread(fd: int, chunk: bytes) -> None:
    """Write without blocking the loop.

    A daemon, unlike asyncio's own threads, does not keep us alive when its reader never reads.
    """
    import threading

    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work() -> None:
        error: OSError | None = None
        try:
            _write_all(fd, chunk)
        except OSError as err:
            error = err
        with contextlib.suppress(RuntimeError):  # the loop is closed: we were cancelled
            loop.call_soon_threadsafe(_settle, done, error)

    threading.Thread(target=work, daemon=True).start()
    await done


def _settle(future: "asyncio.Future[None]", error: OSError | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class Relay:
    """Passes our signals to the command, or to all that run now.

    While there is none, a signal ends us. The second Ctrl-C kills the command, and the third does
    not wait for it any more.
    """

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._task = asyncio.current_task()
        self._interrupts = 0
        self.ended_by: Exit | None = None
        self.told: Exit | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Relay":
        loop = asyncio.get_running_loop()
        for number in _RELAYED:
            loop.add_signal_handler(number, self._receive, number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in _RELAYED:
            loop.remove_signal_handler(number)

    def attach(self, process: Process) -> None:
        """From now on signals are the command's."""
        self._processes.append(process)

    def detach(self, process: Process) -> None:
        """Its end is not ours: signals are for those that still run."""
        self._processes.remove(process)

    def end(self, code: Exit) -> None:
        """End us, with this code."""
        self.ended_by = code
        if self._task is not None:
            self._task.cancel()

    def _receive(self, number: signal.Signals) -> None:
        name = _RELAYED[number]
        if number == signal.SIGINT:
            self._interrupts += 1
            name = "INT" if self._interrupts == 1 else "KILL"
        self.told = Exit(128 + number)
        if not self._processes or self._interrupts > 2:
            self.end(self.told)
            return
        for process in self._processes:
            task = asyncio.get_running_loop().create_task(self._send(process, name))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, process: Process, name: str) -> None:
        with contextlib.suppress(ChannelError, GuestError):  # it ended meanwhile, or its line did
            await process.signal(name)
