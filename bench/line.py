"""The line's race: hostctl, the raw line and the QEMU guest agent, in one machine, by turns.

A round lets each contender of each task do the task a few times; who begins changes from round to
round, so that a busy moment of the host hits all alike.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hostctl.machine import Machine
from hostctl_channels.interface import Channel, Command

from .effort import Effort
from .guest import BULK, ECHO, FOLDER, QGA
from .peers import Qga, RawBulk, RawEcho
from .samples import MB, Samples

__all__ = ["BOTH", "EXEC", "FLOOR_C", "FLOOR_SHELL", "GET", "PING", "PUT", "Race"]

PING, EXEC, BOTH, PUT, GET = "ping", "exec /bin/true", "exec with both streams", "put", "get"
FLOOR_SHELL, FLOOR_C = "floor: the guest's shell", "floor: C, vfork and exec"

THROUGH: Final = "hostctl, through qga"  # its channel for guests without our agent

_TRUE: Final = ("/bin/true",)
_SPEAK: Final = ("/bin/sh", "-c", "echo out; echo err >&2")
_POLLS_MS: Final = (0, 1, 2, 5, 10, 20)  # 0 never sleeps
_CHUNKS: Final = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
_TRIALS: Final = 2  # of each size; the better one counts
_LOOP: Final = 20


@dataclass(frozen=True, slots=True)
class _Contender:
    """One way to do a task: `run` does it once, and returns what the samples hold."""

    task: str
    name: str
    unit: str
    repeat: int
    run: Callable[[], Awaitable[float]]


class Race:
    """Everything that is measured in the machine, one round at a time."""

    def __init__(
        self,
        machine: Machine,
        through: Channel,
        sockets: Path,
        effort: Effort,
        samples: Samples,
    ) -> None:
        self._machine = machine
        self._effort = effort
        self._samples = samples
        self._echo = RawEcho(sockets / f"{ECHO}.sock")
        self._bulk = RawBulk(sockets / f"{BULK}.sock")
        self._qga = Qga(sockets / f"{QGA}.sock")
        self._through = through
        self._data = os.urandom(effort.bulk_bytes)
        self._chunk = {PUT: 0, GET: 0}

    async def prepare(self) -> dict[str, int]:
        """Fill the files, prove that they arrive, and return the agent's best sizes of a piece."""
        path = f"{FOLDER}/hostctl"
        await self._machine.put(self._data, path)
        if await self._machine.read(path) != self._data:
            raise AssertionError("what came back is not what was put")
        self._bulk.put(self._data)
        data, path = self._data[: self._effort.qga_bytes], f"{FOLDER}/qga"
        less = data[: max(_CHUNKS)]
        self._chunk[PUT] = _fastest(lambda chunk: self._qga.put(less, path, chunk))
        self._chunk[GET] = _fastest(lambda chunk: self._qga.get(path, len(less), chunk))
        self._qga.put(data, path, self._chunk[PUT])
        return dict(self._chunk)

    async def round(self, number: int) -> None:
        """Run every contender of every task."""
        for group in (self._pings(), self._commands(), self._floors(), self._transfers()):
            turn = number % len(group)
            for contender in (*group[turn:], *group[:turn]):
                await self._machine.ping()  # connected; a port is given back after idle seconds
                if contender.name == THROUGH:
                    await self._through.ping()
                if contender.repeat > 1:
                    await contender.run()
                values = [await contender.run() for _ in range(contender.repeat)]
                self._samples.add(contender.task, contender.name, contender.unit, values)

    def choose_polling(self) -> None:
        """Enter as the agent's result the polling that was best over all rounds."""
        for task in (EXEC, BOTH):
            names = [f"qga, polled every {poll} ms" for poll in _POLLS_MS]
            best = min(names, key=lambda name: self._samples.median(task, name))
            self._samples.set(task, "qga", self._samples.get(task, best))

    # Who does what

    def _pings(self) -> list[_Contender]:
        count = self._effort.pings
        return [
            _Contender(PING, "raw", "ms", count, _now(lambda: self._echo.ping() * 1e3)),
            _Contender(PING, "hostctl", "ms", count, _timed(self._machine.ping)),
            _Contender(PING, "hostctl, its own figure", "ms", count, self._own_figure),
            _Contender(PING, THROUGH, "ms", count, _timed(self._through.ping)),
            _Contender(PING, "qga", "ms", count, _now(lambda: self._qga.ping() * 1e3)),
        ]

    def _commands(self) -> list[_Contender]:
        count = self._effort.execs
        found = []
        for task, argv, capture in ((EXEC, _TRUE, False), (BOTH, _SPEAK, True)):
            found.append(_Contender(task, "hostctl", "ms", count, self._ours(*argv)))
            found.append(_Contender(task, THROUGH, "ms", count, self._ours_through(argv)))
            for poll in _POLLS_MS:
                name = f"qga, polled every {poll} ms"
                found.append(_Contender(task, name, "ms", count, self._theirs(argv, capture, poll)))
        return found

    def _floors(self) -> list[_Contender]:
        script = f"( exec {_SPEAK[0]} -c '{_SPEAK[2]}' ) >/dev/null 2>&1"
        return [
            _Contender(EXEC, FLOOR_SHELL, "ms", 2, lambda: self._loop("( exec /bin/true )")),
            _Contender(BOTH, FLOOR_SHELL, "ms", 2, lambda: self._loop(script)),
            _Contender(EXEC, FLOOR_C, "ms", 2, self._spawn),
        ]

    def _transfers(self) -> list[_Contender]:
        size, machine = len(self._data), self._machine
        less = self._data[: self._effort.qga_bytes]
        path, other = f"{FOLDER}/hostctl", f"{FOLDER}/qga"
        rows: list[tuple[str, str, int, Callable[[], Awaitable[float]]]] = [
            (PUT, "raw", size, _now(lambda: self._bulk.put(self._data) * 1e3)),
            (
                PUT,
                "raw, not kept",
                size,
                _now(lambda: self._bulk.put(self._data, keep=False) * 1e3),
            ),
            (PUT, "hostctl", size, _timed(lambda: machine.put(self._data, path))),
            (PUT, THROUGH, len(less), _timed(lambda: self._put_through(less, other))),
            (
                PUT,
                "qga",
                len(less),
                _now(lambda: self._qga.put(less, other, self._chunk[PUT]) * 1e3),
            ),
            (GET, "raw", size, _now(lambda: self._bulk.get(size) * 1e3)),
            (GET, "hostctl", size, _timed(lambda: machine.get(path, os.devnull))),
            (GET, THROUGH, len(less), _timed(lambda: self._get_through(other))),
            (
                GET,
                "qga",
                len(less),
                _now(lambda: self._qga.get(other, len(less), self._chunk[GET]) * 1e3),
            ),
        ]
        return [
            _Contender(task, name, "MB/s", 1, _rate(bytes_, run))
            for task, name, bytes_, run in rows
        ]

    # How

    async def _own_figure(self) -> float:
        return await self._machine.ping() * 1e3

    def _ours(self, *argv: str) -> Callable[[], Awaitable[float]]:
        return _timed(lambda: self._machine.exec(*argv, check=True))

    def _ours_through(self, argv: tuple[str, ...]) -> Callable[[], Awaitable[float]]:
        return _timed(lambda: self._through.exec(Command.of(*argv)))

    async def _put_through(self, data: bytes, path: str) -> None:
        await self._through.put(io.BytesIO(data), len(data), path.encode())

    async def _get_through(self, path: str) -> None:
        await self._through.get(path.encode(), io.BytesIO())

    def _theirs(
        self, argv: tuple[str, ...], capture: bool, poll_ms: int
    ) -> Callable[[], Awaitable[float]]:
        return _now(lambda: self._qga.exec(*argv, capture=capture, poll_s=poll_ms / 1e3) * 1e3)

    async def _loop(self, line: str) -> float:
        """Return the milliseconds that the agent's kind of shell needs for `line`, in a loop."""
        none = await self._looped(line, 0)
        return (await self._looped(line, _LOOP) - none) / _LOOP

    async def _looped(self, line: str, count: int) -> float:
        script = f"i=0; while [ $i -lt {count} ]; do {line}; i=$((i + 1)); done"
        return await self._ours("/bin/sh", "-c", script)()

    async def _spawn(self) -> float:
        result = await self._machine.exec(
            f"{FOLDER}/rawline", "spawn", str(_LOOP), *_TRUE, check=True
        )
        return int(result.stdout) / 1e6


def _fastest(run: Callable[[int], float]) -> int:
    """Return the size of a piece with which a transfer of the agent takes the least seconds."""
    seconds = {chunk: min(run(chunk) for _ in range(_TRIALS)) for chunk in _CHUNKS}
    return min(seconds, key=seconds.__getitem__)


def _timed(work: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[float]]:
    """Wrap a call of ours: the milliseconds its caller waits."""

    async def run() -> float:
        begin = time.perf_counter()
        await work()
        return (time.perf_counter() - begin) * 1e3

    return run


def _now(work: Callable[[], float]) -> Callable[[], Awaitable[float]]:
    """Wrap a peer's blocking call."""

    async def run() -> float:
        return work()

    return run


def _rate(size_bytes: int, run: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    async def rate() -> float:
        return size_bytes / (await run() / 1e3) / MB

    return rate
