"""`exec` in several machines at once, and `exec --json`: output by lines, ends as events."""

import argparse
import asyncio
import contextlib
import sys

from hostctl.controller import Controller
from hostctl.errors import Skipped
from hostctl.localfile import SharedSource
from hostctl_channels.errors import ChannelError, GuestError
from hostctl_channels.interface import ExitStatus, Process

from . import opening, render, several, units
from .exec import STDIN_CHUNK, Feed, Relay, Taps, converse, exit_code, feed
from .exits import Exit
from .lines import Printer, Voice


def run(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    """Run the command everywhere; our standard input goes, whole, to each."""
    with contextlib.ExitStack() as stack:
        source = None
        if args.interactive and several.is_group([args.name]):
            # Read before the event loop runs: a terminal or a pipe must obey Ctrl-C.
            source = stack.enter_context(standard_input())
        return opening.run(_exec(args, argv, env, source))


def standard_input() -> SharedSource:
    """Return our standard input, to be read once for many."""
    return SharedSource(b"" if sys.stdin is None else open(0, "rb", closefd=False))


async def _exec(
    args: argparse.Namespace,
    argv: tuple[bytes, ...],
    env: dict[bytes, bytes],
    source: SharedSource | None,
) -> int:
    with Relay() as relay:
        try:
            async with opening.open_controller() as controller:
                crew = _Crew(args, argv, env, controller, relay, source)
                code = await crew.work(several.chosen(controller, args))
        except asyncio.CancelledError:
            if relay.ended_by is None:
                raise
            return relay.ended_by
    return code or (relay.told if crew.has_skipped and relay.told else Exit.OK)


class _Crew:
    """One command, its machines, and where their output goes."""

    def __init__(
        self,
        args: argparse.Namespace,
        argv: tuple[bytes, ...],
        env: dict[bytes, bytes],
        controller: Controller,
        relay: Relay,
        source: SharedSource | None,
    ) -> None:
        self._args, self._argv, self._env = args, argv, env
        self._controller = controller
        self._relay = relay
        self._source = source
        self.has_skipped = False
        self._taps = Taps()
        self._printer = Printer(self._write, json=args.json, prefix=args.prefix)

    async def work(self, chosen: several.Chosen) -> int:
        return await several.each(
            self._args, chosen, self._one, self._tell, code=exit_code, board=self._printer
        )

    async def _one(self, name: str) -> ExitStatus:
        if self._relay.told is not None:
            self.has_skipped = True
            raise Skipped("not begun: interrupted")
        args = self._args
        machine = opening.machine(self._controller, name, args.channel)
        machine.steal = args.steal
        async with machine.process(
            *self._argv,
            stdin=args.interactive,
            env=self._env or None,
            cwd=args.workdir,
            user=args.user,
            timeout_s=args.timeout_s,
        ) as process:
            self._relay.attach(process)
            try:
                return await self._converse(name, process)
            finally:
                self._relay.detach(process)

    async def _converse(self, name: str, process: Process) -> ExitStatus:
        voice = Voice(self._printer, name)
        try:
            return await converse(process, voice, self._feeder())
        finally:
            await voice.close()

    def _feeder(self) -> Feed | None:
        if not self._args.interactive:
            return None
        return feed if self._source is None else _feed_from(self._source)

    async def _write(self, fd: int, data: bytes) -> None:
        try:
            await self._taps.write(fd, data)
        except BrokenPipeError:  # no machine failed, but nobody reads any more
            self._relay.end(Exit.BROKEN_PIPE)
            raise

    async def _tell(self, name: str, status: ExitStatus, duration_s: float) -> None:
        event = {
            "event": "exit",
            "name": name,
            "code": status.code,
            "signal": status.signal,
            "timed_out": status.timed_out,
            "duration_s": round(duration_s, 3),
        }
        if self._args.json:
            await self._printer.put(event)
        if status.timed_out:
            limit = units.show_duration(self._args.timeout_s or 0)
            render.say(f"exec on {name}: timed out after {limit}, the command was killed")
        elif exit_code(status):
            render.talk(f"{name}: {status}")


def _feed_from(source: SharedSource) -> Feed:
    async def feed_whole(process: Process) -> None:
        view = source.view()
        with contextlib.suppress(ChannelError, GuestError):  # as exec.feed
            while chunk := await asyncio.to_thread(view.read, STDIN_CHUNK):
                await process.write(chunk)
            await process.close_stdin()

    return feed_whole
