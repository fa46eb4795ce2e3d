"""A machine's VBoxHeadless: looked at, begun and ended, with what VirtualBox needs to be told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from ...errors import BackendError, DeadlineExceeded
from ..process import ProcessId
from .faults import BridgeDied, NotFound, VirtualBoxError
from .frozen import vm_process
from .seen import Look, VmState

if TYPE_CHECKING:
    from .driver import Driver
    from .target import Target

__all__ = ["POWER_OFF_S", "VmProcess"]

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.1
POWER_OFF_S: Final = 20.0  # it takes 0.1 s, but 15 s while somebody refers to its console
HUNG_S: Final = 5.0  # for an answer of a VBoxHeadless, before it is ended by SIGKILL
GONE_S: Final = 20.0  # until VBoxSVC has noticed that


class VmProcess:
    """The process that runs one machine, whoever started it."""

    def __init__(self, driver: Callable[[], Awaitable[Driver]], target: Target) -> None:
        self._driver = driver
        self._target = target

    async def look(self) -> Look:
        """Return its state. A machine of ours that is gone counts as powered off.

        Raises:
            NotFound: one that was adopted is gone.
        """
        try:
            return await (await self._driver()).look(self._target.id)
        except NotFound:
            if self._target.is_adopted:
                raise
            return Look(VmState.POWERED_OFF, is_locked=False)

    async def pid(self) -> int | None:
        """Return its pid, where it runs."""
        return vm_process(self._target.id) or (await self.look()).pid

    async def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended; tell whether it has."""
        deadline = time.monotonic() + timeout_s
        while True:
            # One that cannot be asked for may be alive or not.
            with contextlib.suppress(BackendError):
                if not (await self.look()).state.as_ours.is_alive:
                    return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            with contextlib.suppress(BackendError, TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._hear_end()
            await asyncio.sleep(min(LOOK_S, left_s))

    async def _hear_end(self) -> None:
        """Wait until its state changes to one without a process."""
        changes = (await self._driver()).changes(self._target.id)
        async with contextlib.aclosing(changes):
            async for state in changes:
                if not state.as_ours.is_alive:
                    return

    async def end(self) -> None:
        """End it: by VirtualBox, and where that hangs, by SIGKILL. Fine when there is none.

        Raises:
            DeadlineExceeded: VBoxSVC has not noticed its end.
        """
        process = self._known()
        driver = await self._driver()
        try:
            await driver.power_off(self._target.id, POWER_OFF_S if process is None else HUNG_S)
            return
        except NotFound:
            return
        except (BridgeDied, DeadlineExceeded, VirtualBoxError) as err:
            logger.info("%s: power off: %s", self._target.name, err)
        process = process or self._known()
        if process is not None:
            process.send(signal.SIGKILL)
        await self._wait_unlocked()

    def _known(self) -> ProcessId | None:
        pid = vm_process(self._target.id)
        return None if pid is None else ProcessId.of(pid)

    async def _wait_unlocked(self) -> None:
        """Wait until VBoxSVC has noticed that it is gone."""
        deadline = time.monotonic() + GONE_S
        while (await self.look()).is_locked:
            if time.monotonic() > deadline:
                name = self._target.name
                raise DeadlineExceeded(f"machine {name!r} is still locked after {GONE_S:g} s")
            await asyncio.sleep(LOOK_S)
