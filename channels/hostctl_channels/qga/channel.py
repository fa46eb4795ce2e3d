"""Commands and files through the QEMU guest agent, for guests with nothing of ours."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from ..entropy import RESEED
from ..errors import OutputTooLarge, Refused
from ..interface import (
    MAX_OUTPUT,
    STDOUT,
    Buffer,
    Capability,
    Command,
    FileInfo,
    Progress,
    Pulse,
    PutOptions,
    Result,
)
from .agent import CALL_S, Agent, forbidden
from .exchange import Exchange
from .files import download, upload
from .process import QgaProcess

__all__ = ["QgaChannel"]

_PLAIN: Final = PutOptions()
_EXEC: Final = frozenset({"guest-exec", "guest-exec-status"})
_FILES: Final = frozenset(f"guest-file-{word}" for word in ("open", "read", "write", "close"))
# What each capability is made of. Whether the guest has the tools (su, sha256sum…) shows in use.
_NEEDS: Final = {
    Capability.STDIN: _EXEC,
    Capability.SIGNAL: _EXEC,
    Capability.USER: _EXEC,
    Capability.METADATA: _EXEC,
    Capability.OWNER: _EXEC,
    Capability.MTIME: _EXEC,
    Capability.SHA256: _EXEC,
    Capability.CLOCK: frozenset({"guest-set-time"}),
    Capability.ENTROPY: _FILES,
}


class QgaChannel:
    """See interface.Channel.

    What the agent forbids is refused by the name of the rpc, with the setting that allows it.
    """

    def __init__(self, exchange: Exchange, pulse: Pulse) -> None:
        self._exchange = exchange
        self._pulse = pulse
        self.agent = Agent(exchange)
        self.version = ""
        self._rpcs: frozenset[str] = frozenset()
        self._known_epoch: int | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Channel."""
        return frozenset(name for name, rpcs in _NEEDS.items() if rpcs <= self._rpcs)

    @property
    def is_warm(self) -> bool:
        """See Channel."""
        return self._exchange.is_warm

    async def connect(self, timeout_s: float) -> None:
        """See Channel."""
        await self._know(timeout_s, anew=True)

    async def close(self) -> None:
        """See Channel."""
        await self._exchange.close()

    async def ping(self) -> float:
        """See Channel."""
        await self._know()  # or the first one would count the sync
        begin = time.perf_counter()
        await self.agent.ping()
        return time.perf_counter() - begin

    async def set_clock(self, unix_s: float) -> None:
        """See Channel."""
        await self._need(Capability.CLOCK)
        await self.agent.set_time(unix_s)

    async def feed_entropy(self, data: Buffer) -> None:
        """See Channel."""
        await self._need(Capability.ENTROPY)
        path, view = b"/dev/urandom", memoryview(data).cast("B")
        handle = await self.agent.open(path, "r+")  # "w" would truncate, which a device refuses
        try:
            while view:
                view = view[await self.agent.write(handle, view, path) :]
        finally:
            await self.agent.shut(handle, path)
        if "guest-exec" in self._rpcs:
            await self.exec(Command.of("sh", "-c", RESEED))

    # --- commands -------------------------------------------------------------------------------

    async def exec(
        self, command: Command, *, input: Buffer | None = None, max_output_bytes: int = MAX_OUTPUT
    ) -> Result:
        """See Channel. Each stream is bounded by what the agent keeps, 16 MiB, too."""
        begin = time.perf_counter()
        kept = [b"", b""]
        async with self._running(command) as process:
            await process.start(input)
            while piece := await process.read():
                number, data = piece
                if len(data) > max_output_bytes:
                    raise OutputTooLarge(f"{command}: printed more than {max_output_bytes} bytes")
                kept[number - STDOUT] = data
            status = await process.wait()
        return Result(command, status, kept[0], kept[1], time.perf_counter() - begin)

    @asynccontextmanager
    async def spawn(self, command: Command, *, stdin: bool = False) -> AsyncIterator[QgaProcess]:
        """See Channel. Output comes at the end; with `stdin` it begins when that is closed."""
        async with self._running(command) as process:
            if stdin:
                process.collect()
            else:
                await process.start()
            yield process

    @asynccontextmanager
    async def _running(self, command: Command) -> AsyncIterator[QgaProcess]:
        await self._allow(_EXEC)
        if command.usage:
            raise Refused(
                f"{command}: the guest agent does not tell CPU time", Capability.USAGE.value
            )
        process = QgaProcess(self.agent, command, self._pulse, self._spooled)
        try:
            yield process
        finally:
            await process.finish()

    async def _spooled(self, data: Buffer) -> bytes:
        """Write a command's input, too long for a request, where only the agent's user reads it."""
        path = b"/tmp/.hostctl-" + os.urandom(8).hex().encode()
        await self.put(io.BytesIO(data), len(data), path, PutOptions(mode=0o600))
        return path

    # --- files ----------------------------------------------------------------------------------

    async def put(
        self,
        source: BinaryIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = _PLAIN,
        progress: Progress | None = None,
    ) -> FileInfo:
        """See Channel."""
        await self._allow(_EXEC | _FILES)
        return await upload(self.agent, self._pulse, source, size_bytes, path, options, progress)

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
        """See Channel. `stat` is left out where the guest forbids commands."""
        await self._allow(_FILES | (_EXEC if verify else frozenset()))
        return await download(
            self.agent,
            self._pulse,
            path,
            sink,
            may_exec=self._rpcs >= _EXEC,
            stat=stat,
            verify=verify,
            max_bytes=max_bytes,
            progress=progress,
        )

    # --- the guest itself -----------------------------------------------------------------------

    async def os_info(self) -> dict[str, str]:
        """Return what the guest says of its system: "name", "version-id", "kernel-release"…"""
        await self._allow(frozenset({"guest-get-osinfo"}))
        return await self.agent.os_info()

    async def freeze(self) -> int:
        """Freeze the guest's file systems; return how many. Nothing but `thaw` works meanwhile."""
        await self._allow(frozenset({"guest-fsfreeze-freeze", "guest-fsfreeze-thaw"}))
        return await self.agent.freeze()

    async def thaw(self) -> int:
        """Thaw the guest's file systems; return how many. Fine when none is frozen."""
        return await self.agent.thaw()  # not asked for first: guest-info may be forbidden by then

    async def is_frozen(self) -> bool:
        """Tell whether the agent holds file systems frozen."""
        return await self.agent.is_frozen()

    async def shutdown(self, mode: str = "powerdown") -> None:
        """Power off ("powerdown", "halt" or "reboot"): asked for, not waited for."""
        await self._allow(frozenset({"guest-shutdown"}))
        from ..errors import ChannelError

        with contextlib.suppress(ChannelError):  # an agent that obeys says nothing
            await self.agent.shutdown(mode)

    # --- what it may ----------------------------------------------------------------------------

    async def _know(self, timeout_s: float = CALL_S, *, anew: bool = False) -> None:
        """Ask once per timeline what the agent allows."""
        epoch = self._pulse.epoch()
        if anew or self._known_epoch != epoch:
            self.version, self._rpcs = await self.agent.info(timeout_s)
            self._known_epoch = epoch

    async def _allow(self, rpcs: frozenset[str], capability: Capability | None = None) -> None:
        await self._know()
        for rpc in sorted(rpcs - self._rpcs):
            raise forbidden(rpc, capability and capability.value)

    async def _need(self, capability: Capability) -> None:
        await self._allow(_NEEDS[capability], capability)
