"""hostctl's end of the bridge: starts it where VirtualBox's API is, asks it, starts it anew.

One process per VirtualBox and event loop, shared by its machines. When it dies, what was under way
fails with `BridgeDied`, and the next request starts another. Nothing that it holds outlives it; the
machines do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.resources import files
from typing import Any, NoReturn

from ... import procs
from ...errors import BackendError, DeadlineExceeded, ToolMissing
from .bridge.wire import GREETING, Answer, Cancel, Decoder, Failure, Request, WireError, encode
from .faults import NOT_REGISTERED, BridgeDied, VirtualBoxError, translate
from .place import Place

__all__ = ["Bridge", "borrow", "give_back"]

logger = logging.getLogger(__name__)

CALL_S = 60.0
GREETING_S = 60.0  # Python, VirtualBox's library, and VBoxSVC, which starts in a second
END_S = 2.0
REBIRTH_S = 20.0  # for a VBoxSVC that was killed: it was 14 s until all knew of its death
RETRY_S = 0.3
READ_BYTES = 1 << 16
LAST_WORDS = 4000

# The whole program that the other Python is given; the sources follow on its standard input.
LOADER = """\
import json, os, sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.util import spec_from_loader
line = b""
while not line.endswith(b"\\n"):
    byte = os.read(0, 1 if not line else 65536)
    if not byte:
        sys.exit(1)
    line += byte
start = json.loads(line)
class Sources(MetaPathFinder, InspectLoader):
    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self) if name in start["sources"] else None
    def get_source(self, name):
        return start["sources"][name]
    def is_package(self, name):
        return "." not in name
    def get_code(self, name):
        return compile(start["sources"][name], f"<{name}>", "exec")
sys.meta_path.insert(0, Sources())
from hostctl_bridge.main import main
main(start["paths"])
"""
PACKAGE = "hostctl_bridge"  # its name over there, where hostctl may be installed too


class Bridge:
    """Requests to one VirtualBox, from one event loop."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.users = 0
        self.greeting: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Queue[Answer | Failure]] = {}
        self._last_id = GREETING
        self._stderr = ""
        self._python: str | None = None

    @property
    def pid(self) -> int | None:
        """The bridge's process, None while it has none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def connect(self) -> dict[str, Any]:
        """Start the bridge if it does not run; return its greeting.

        Raises:
            ToolMissing: no Python here has VirtualBox's API.
            Unsupported: it is a VirtualBox that we do not know.
        """
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start()
        return self.greeting

    async def call(
        self, op: str, *, body: bytes | None = None, timeout_s: float = CALL_S, **args: Any
    ) -> Answer:
        """Ask for one operation; return its answer: `.value`, and `.body` if it has bytes.

        Raises:
            VirtualBoxError: VirtualBox refused.
            BridgeDied: the bridge ended meanwhile; what was asked may be done or not.
            DeadlineExceeded: no answer in time; the bridge was ended, for its one thread hangs.
        """
        async with self.asking(op, body=body, timeout_s=timeout_s, **args) as answers:
            async for answer in answers:
                if not answer.more:
                    return answer
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def asking(
        self, op: str, *, body: bytes | None = None, timeout_s: float | None = None, **args: Any
    ) -> AsyncIterator[AsyncGenerator[Answer, None]]:
        """Ask for an operation that answers in pieces; iterate over them, the last is not `.more`.

        `timeout_s` is for each piece. Leaving it early cancels the operation. Errors as in `call`.
        """
        self._last_id += 1
        key = self._last_id
        queue: asyncio.Queue[Answer | Failure] = asyncio.Queue()
        try:
            await self._deliver(key, queue, encode(Request(key, op, args, body)), op)
            yield self._answers(key, queue, op, timeout_s)
        finally:
            if self._waiting.pop(key, None) is not None:
                self._cancel(key)

    async def close(self) -> None:
        """End the bridge; the next request starts it anew. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # it takes its leave of VirtualBox, and ends
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
        await self._reap(process)

    # How

    async def _start(self) -> None:
        """Start it, again while VBoxSVC comes up anew."""
        deadline = time.monotonic() + REBIRTH_S
        while True:
            try:
                await self._start_anywhere()
            except VirtualBoxError as err:
                if err.code != NOT_REGISTERED or time.monotonic() > deadline:
                    raise
                logger.info("once more: %s", err)
            else:
                return
            await asyncio.sleep(RETRY_S)

    async def _start_anywhere(self) -> None:
        refusal: BackendError | None = None
        for python in (self._python,) if self._python else self.place.pythons:
            try:
                await self._start_in(python)
            except (ToolMissing, BridgeDied) as err:
                logger.debug("no bridge in %s: %s", python, err)
                refusal = refusal or err
                continue
            self._python = python
            return
        assert refusal is not None
        raise refusal

    async def _start_in(self, python: str) -> None:
        argv = (*self.place.prefix, python, "-c", LOADER)
        self._stderr = ""
        process = self._process = await procs.spawn_piped(argv)
        queue: asyncio.Queue[Answer | Failure] = asyncio.Queue()
        self._waiting[GREETING] = queue
        self._tasks = (
            asyncio.create_task(self._listen(process)),
            asyncio.create_task(self._overhear(process)),
        )
        try:
            await self._send(_program(self.place), "start")
            answers = self._answers(GREETING, queue, "connect to VirtualBox", GREETING_S)
            self.greeting = dict((await anext(answers)).value)
        except BaseException:
            await self.close()
            raise
        finally:
            self._waiting.pop(GREETING, None)
        logger.debug("bridge %d: VirtualBox %s", process.pid, self.greeting["version"])

    async def _deliver(
        self, key: int, queue: asyncio.Queue[Answer | Failure], data: bytes, op: str
    ) -> None:
        """Send a request; to a fresh bridge if this one is found dead, for it has done nothing.

        It is waited for from then on: the end of a bridge fails whoever waits, and no other.
        """
        await self.connect()
        self._waiting[key] = queue
        try:
            await self._send(data, op)
        except BridgeDied:
            del self._waiting[key]
            await self._bury()
            while not queue.empty():
                queue.get_nowait()
            await self.connect()
            self._waiting[key] = queue
            await self._send(data, op)

    async def _send(self, data: bytes, what: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise self._died(what)
        try:
            process.stdin.write(data)
            await process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise self._died(what) from None

    def _cancel(self, key: int) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(encode(Cancel(key)))

    async def _answers(
        self, key: int, queue: asyncio.Queue[Answer | Failure], what: str, timeout_s: float | None
    ) -> AsyncGenerator[Answer, None]:
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    said = await queue.get()
            except TimeoutError:
                await self._give_up(what, timeout_s)
            if isinstance(said, Failure):
                self._waiting.pop(key, None)
                if said.kind == "died":
                    await self._bury()
                raise translate(said, what)
            if not said.more:
                self._waiting.pop(key, None)
                yield said
                return
            yield said

    async def _give_up(self, what: str, timeout_s: float | None) -> NoReturn:
        """End a bridge that hangs; everything else that waits for it fails too."""
        await self._bury()
        raise DeadlineExceeded(f"{what}: {self.place} did not answer within {timeout_s:g} s")

    async def _bury(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await self._reap(process)

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        # The group: a prefix may have made the bridge a child of its own. VBoxSVC is in another.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(process.wait(), *self._tasks, return_exceptions=True)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand out answers until the pipe ends; then everybody who waits fails."""
        assert process.stdout is not None
        decoder = Decoder()
        try:
            while data := await process.stdout.read(READ_BYTES):
                for message in decoder.feed(data):
                    if isinstance(message, Answer | Failure) and message.id in self._waiting:
                        self._waiting[message.id].put_nowait(message)
        except WireError as err:
            logger.error("bridge %d: %s", process.pid, err)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        for queue in tuple(self._waiting.values()):
            queue.put_nowait(Failure(GREETING, "died", self._epitaph()))

    async def _overhear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(READ_BYTES):
            text = data.decode("utf-8", "replace")
            logger.debug("bridge %d says: %s", process.pid, text.rstrip())
            self._stderr = (self._stderr + text)[-LAST_WORDS:]

    def _died(self, what: str) -> BridgeDied:
        return BridgeDied(f"{what}: {self._epitaph()}")

    def _epitaph(self) -> str:
        status = None if self._process is None else self._process.returncode
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        last = self._stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return f"the bridge to {self.place} died ({how}): {last[0]}"


_bridges: dict[tuple[Place, asyncio.AbstractEventLoop], Bridge] = {}


def borrow(place: Place) -> Bridge:
    """Return this loop's bridge to a VirtualBox; machines share it, and each gives it back."""
    key = (place, asyncio.get_running_loop())
    bridge = _bridges.setdefault(key, Bridge(place))
    bridge.users += 1
    return bridge


async def give_back(bridge: Bridge) -> None:
    """End the bridge when nobody else has it."""
    bridge.users -= 1
    if not bridge.users:
        _bridges.pop((bridge.place, asyncio.get_running_loop()), None)
        await bridge.close()


def _program(place: Place) -> bytes:
    """Return what the loader reads: one line with the bridge's sources."""
    folder = files(f"{__package__}.bridge")
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".py")]
    sources = {_module(name): (folder / name).read_text("utf-8") for name in names}
    return json.dumps({"sources": sources, "paths": [place.pyvbox_path]}).encode() + b"\n"


def _module(file: str) -> str:
    name = file.removesuffix(".py")
    return PACKAGE if name == "__init__" else f"{PACKAGE}.{name}"
