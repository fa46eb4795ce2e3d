"""The session of guest control that a channel keeps: opened when needed, anew when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from ..deadline import Deadline
from ..errors import HostctlError, Refused
from ..interface import Pulse
from ..login import Login
from .control import GuestControl, Session

__all__ = ["OPEN_S", "Sessions"]

logger = logging.getLogger(__name__)

OPEN_S: Final = 60.0  # after a restore the guest's service begins anew: 3 to 13 s, seen emulated


class Sessions:
    """At most one session, for many tasks; one timeline's session is never used on another's.

    `epoch` is that of the last session.
    """

    def __init__(self, control: GuestControl, login: Login | None, pulse: Pulse) -> None:
        self._control = control
        self._login = login
        self._pulse = pulse
        self._opening = asyncio.Lock()
        self._open: contextlib.AsyncExitStack | None = None
        self._session: Session | None = None
        self.epoch = -1

    @property
    def current(self) -> Session | None:
        """The session, if it would do for a request now."""
        fits = self.epoch == self._pulse.epoch()
        return self._session if fits and self._session and self._session.is_open else None

    async def take(self, timeout_s: float = OPEN_S) -> Session:
        """Return the session, opened if need be.

        Raises what GuestControl.session does, ChannelReset, and Refused: nobody said who logs in.
        """
        async with self._opening:  # one log-in is enough for all tasks
            if self.current is None:
                await self.drop()
                await self._log_in(timeout_s)
            assert self._session is not None
            return self._session

    async def drop(self) -> None:
        """End the session, and all that runs in it. Safe to call twice."""
        stack, self._open, self._session = self._open, None, None
        if stack is not None:
            with contextlib.suppress(HostctlError):
                await stack.aclose()

    async def _log_in(self, timeout_s: float) -> None:
        if self._login is None:
            raise Refused(
                "guest control wants a user of the guest",
                "login",
                hint='write user = "…" and password = "…" to a file of mode 600, and name it by '
                "hostctl attach --login FILE",
            )
        epoch, stack = self._pulse.epoch(), contextlib.AsyncExitStack()
        # A little later than the other side, which knows better why it fails.
        async with Deadline(self._pulse, timeout_s + OPEN_S, "log in by guest control"):
            self._session = await stack.enter_async_context(
                self._control.session(self._login, timeout_s)
            )
        self._open, self.epoch = stack, epoch
        logger.debug("guest control: a session, Additions %s", self._session.additions)
