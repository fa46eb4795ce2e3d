"""`hostctl exec`: a command in a machine, as if it ran here.

Bytes pass as they come, both ways; signals go in, the exit status comes out. The pieces: `Taps`
(our stdout and stderr), `_feed` (our stdin), `_Relay` (our signals).
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import select
import signal
import sys
from typing import Final

from hostctl_channels.errors import ChannelError, GuestError
from hostctl_channels.interface import ExitStatus, Process

from . import opening, render, units
from .exits import Exit, UsageError

# One frame of the wire, for each costs the guest a fork; our pipe is widened to it.
STDIN_CHUNK: Final = 1 << 20
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
    return opening.run(_exec(args, argv, env))


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
    with _Relay() as relay:
        try:
            status = await _spawn(args, argv, env, relay)
        except asyncio.CancelledError:
            if relay.ended_by is None:
                raise
            return relay.ended_by
    if status.timed_out:
        limit = units.show_duration(args.timeout_s or 0)
        render.say(f"exec on {args.name}: timed out after {limit}, the command was killed")
    return exit_code(status)


async def _spawn(
    args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes], relay: "_Relay"
) -> ExitStatus:
    async with opening.open_controller() as controller:
        machine = opening.machine(controller, args.name, args.channel)
        machine.steal = args.steal
        async with machine.process(
            *argv,
            stdin=args.interactive,
            env=env or None,
            cwd=args.workdir,
            user=args.user,
            timeout_s=args.timeout_s,
        ) as process:
            relay.attach(process)
            return await _converse(process, interactive=args.interactive)


async def _converse(process: Process, *, interactive: bool) -> ExitStatus:
    """Carry the three streams until the command ended and its output is written."""
    feeder = asyncio.create_task(_feed(process)) if interactive else None
    try:
        taps = Taps()
        while (piece := await process.read()) is not None:
            await taps.write(*piece)
        return await process.wait()
    finally:
        if feeder is not None:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeder


async def _feed(process: Process) -> None:
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


class _Relay:
    """Passes our signals to the command.

    Before there is one, a signal ends us. The second Ctrl-C kills the command, and the third does
    not wait for it any more.
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._task = asyncio.current_task()
        self._interrupts = 0
        self.ended_by: Exit | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "_Relay":
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
        self._process = process

    def _receive(self, number: signal.Signals) -> None:
        name = _RELAYED[number]
        if number == signal.SIGINT:
            self._interrupts += 1
            name = "INT" if self._interrupts == 1 else "KILL"
        if self._process is None or self._interrupts > 2:
            self._end(number)
            return
        task = asyncio.get_running_loop().create_task(self._send(self._process, name))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, process: Process, name: str) -> None:
        with contextlib.suppress(ChannelError, GuestError):  # it ended meanwhile, or its line did
            await process.signal(name)

    def _end(self, number: signal.Signals) -> None:
        self.ended_by = Exit(128 + number)
        if self._task is not None:
            self._task.cancel()
