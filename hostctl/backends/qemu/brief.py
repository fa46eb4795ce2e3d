"""A few short commands to QEMU's monitor, without the library that long conversations need.

qemu.qmp takes 80 ms of CPU to load and several to connect, and a clone of a pool shall be handed
out in 20. What is asked once and answered at once is said here: a greeting, commands, their
returns. Jobs, and whatever takes its time, are monitor.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import MonitorError

__all__ = ["Brief", "Executing", "brief", "tell"]

logger = logging.getLogger(__name__)

ANSWER_S: Final = 10.0  # as monitor.COMMAND_S
RETRY_S: Final = 0.003  # QEMU listens 25 ms after its exec
_OURS: Final = "hostctl"


class Executing(Protocol):
    """Whoever has a monitor: a Brief, or a Monitor."""

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Return QEMU's answer. Raises MonitorError."""


class Brief:
    """A conversation; made by `brief`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Return QEMU's answer.

        Raises:
            MonitorError: refused, no answer in time, or QEMU ended meanwhile.
        """
        logger.debug("> %s %s", command, arguments or "")
        request = {"execute": command, "id": _OURS, "arguments": arguments or {}}
        with _told(command, ANSWER_S):
            async with asyncio.timeout(ANSWER_S):
                self._writer.write(json.dumps(request).encode() + b"\n")
                answer = await self._answer()
        if "error" in answer:
            raise MonitorError(command, str(answer["error"].get("desc")))
        logger.debug("< %s", answer)
        return answer["return"]

    async def _answer(self) -> dict[str, Any]:
        """Return the next line that is no event."""
        while True:
            answer = await self.hear()
            if "error" in answer or answer.get("id") == _OURS:
                return answer

    async def hear(self) -> dict[str, Any]:
        """Return the next line. Raises ValueError at the end, which is no JSON."""
        line: dict[str, Any] = json.loads(await self._reader.readline())
        return line

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def brief(
    path: Path, *, timeout_s: float = ANSWER_S, is_starting: Callable[[], bool] = lambda: False
) -> AsyncIterator[Brief]:
    """Talk to the monitor at `path`, which may not listen yet while `is_starting` says so.

    Raises:
        MonitorError: no greeting in time, or QEMU is not there; its command is "connect".
    """
    with _told("connect", timeout_s):
        async with asyncio.timeout(timeout_s):
            talk = await _begin(path, is_starting)
    try:
        yield talk
    finally:
        await talk.close()


async def tell(path: Path, command: str, timeout_s: float = ANSWER_S) -> None:
    """Have QEMU obey `command` at the monitor `path`. Raises as `brief` and `execute`."""
    doing = "connect"
    try:
        async with asyncio.timeout(timeout_s), brief(path) as qmp:
            doing = command
            await qmp.execute(command)
    except TimeoutError:
        raise _unanswered(doing, timeout_s) from None


async def _begin(path: Path, is_starting: Callable[[], bool]) -> Brief:
    talk = Brief(*await _connect(path, is_starting))
    try:
        await talk.hear()  # its greeting
        await talk.execute("qmp_capabilities")
    except BaseException:
        await talk.close()
        raise
    return talk


async def _connect(
    path: Path, is_starting: Callable[[], bool]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except OSError:
            if not is_starting():
                raise
        await asyncio.sleep(RETRY_S)


@contextlib.contextmanager
def _told(command: str, timeout_s: float) -> Iterator[None]:
    """Turn what can go wrong on a line into an error of ours."""
    try:
        yield
    except TimeoutError:
        raise _unanswered(command, timeout_s) from None
    except (OSError, ValueError) as err:
        raise MonitorError(command, f"qemu ended before it answered: {err}") from err


def _unanswered(command: str, timeout_s: float) -> MonitorError:
    hint = "another program holds the monitor, or qemu hangs"
    return MonitorError(command, f"no answer within {timeout_s:g} s", hint=hint)
