"""Access: the way into one machine's guest. The channel that is open, if one is, and what opens it.

Owns which of the machine's lines may be used and that its channel is opened once; which of several
lines is the best is connect.py's, and whether the guest is awake to be asked, machine.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hostctl_channels.ports import PORTS

from .connect import AUTO, BestChannel, Site, line_named, open_channel

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from .backends.interface import Backend
    from .state import MachineFiles

__all__ = ["Access"]


class Access:
    """The way in."""

    def __init__(self, backend: Backend, files: MachineFiles) -> None:
        self.channel: BestChannel | None = None
        self._backend = backend
        self._files = files
        self._pulse = files.pulse()
        self._only = AUTO
        self._opening = asyncio.Lock()
        self._steal = False

    @property
    def steal(self) -> bool:
        """Whether lines that somebody else holds are taken from them."""
        return self._steal

    @steal.setter
    def steal(self, steal: bool) -> None:
        if steal != self._steal:
            self._steal, self.channel = steal, None  # its ports were asked for the other way

    def use(self, key: str) -> None:
        """Use one line only, or the best (AUTO). Raises ConfigError if there is no such line."""
        if key != AUTO:
            line_named(key)
        self._only, self.channel = key, None

    @property
    def warm(self) -> BestChannel | None:
        """The channel, if its connection was in order a moment ago and the guest is not paused."""
        if self.channel and self.channel.is_warm and not self._pulse.suspended():
            return self.channel
        return None

    async def open(self) -> BestChannel:
        """Return the channel; each request connects by itself."""
        async with self._opening:
            if self.channel is None:
                self.channel = open_channel(
                    await self.endpoints(),
                    self._files.runtime,
                    self._pulse,
                    self._files.channel,
                    self._only,
                    self._files.login,
                )
            return self.channel

    async def close(self) -> None:
        """Give back the ports. The channel connects again when it is asked for something."""
        if self.channel is not None:
            await self.channel.close()

    def forget(self) -> None:
        """Choose anew at the next request: there are other lines now."""
        self._files.channel.unlink(missing_ok=True)
        self.channel = None

    async def endpoints(self) -> Mapping[str, Endpoint]:
        """Return where each port is reached."""
        return await self._backend.endpoints(steal=self._steal)

    async def site(self) -> Site:
        """Return where all lines are, for who tries each."""
        return Site(await self.endpoints(), self._files.runtime, self._pulse, self._files.login)

    async def plug(self) -> Mapping[str, Endpoint]:
        """Add our ports to the living machine; return where each is reached."""
        await self._backend.plug(PORTS)
        return await self.endpoints()
