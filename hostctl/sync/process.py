"""Commands that run while we talk to them: the synchronous Process and Terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loop import LoopThread

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer, ExitStatus
    from hostctl_channels.interface import Process as AsyncProcess
    from hostctl_channels.terminal import Terminal as AsyncTerminal

__all__ = ["Process", "Terminal"]


class Process:
    """A command that runs. Leaving its context kills it if it still does."""

    def __init__(self, loop: LoopThread, process: AsyncProcess) -> None:
        self._loop = loop
        self._async = process

    def read(self) -> tuple[int, bytes] | None:
        return self._loop.call(self._async.read())

    def write(self, data: Buffer) -> None:
        self._loop.call(self._async.write(data))

    def close_stdin(self) -> None:
        self._loop.call(self._async.close_stdin())

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def wait(self) -> ExitStatus:
        return self._loop.call(self._async.wait())


class Terminal:
    """A command at a terminal in the guest. Leaving its context kills it if it still runs."""

    def __init__(self, loop: LoopThread, terminal: AsyncTerminal) -> None:
        self._loop = loop
        self._async = terminal
        self.tool = terminal.tool

    @property
    def is_real(self) -> bool:
        return self._async.is_real

    def read(self) -> bytes | None:
        return self._loop.call(self._async.read())

    def write(self, data: Buffer) -> None:
        self._loop.call(self._async.write(data))

    def close_stdin(self) -> None:
        self._loop.call(self._async.close_stdin())

    def resize(self, rows: int, columns: int) -> None:
        self._loop.call(self._async.resize(rows, columns))

    def signal(self, name: str) -> None:
        self._loop.call(self._async.signal(name))

    def wait(self) -> ExitStatus:
        return self._loop.call(self._async.wait())
