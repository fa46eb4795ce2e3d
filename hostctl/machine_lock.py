"""The lock of one machine: who takes it undoes what a killed hostctl left of the guest's stillness.

Every changing method of a machine is inside it, in whatever process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from .errors import Busy, MachineNotFound
from .state import locked

if TYPE_CHECKING:
    from .backends.interface import Backend
    from .state import MachineFiles

__all__ = ["MachineLock"]

LOCK_S: Final = 30.0  # longer than any start or stop holds it; a big snapshot may hold it longer


class MachineLock:
    """The lock."""

    def __init__(self, backend: Backend, files: MachineFiles) -> None:
        self._backend = backend
        self._files = files

    @contextlib.asynccontextmanager
    async def held(
        self, doing: str, timeout_s: float | None = None, *, thaw: bool = True
    ) -> AsyncIterator[None]:
        """Hold it; whoever waits for it is told that we are `doing` something.

        With `thaw` the guest goes on first, if a save or a restore of it was killed.

        Raises:
            Busy: somebody else has it, all the time.
            MachineNotFound: the machine was deleted meanwhile.
        """
        limit_s = LOCK_S if timeout_s is None else timeout_s
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(
                    locked(self._files.lock, f"machine {self._files.name!r}", doing, limit_s)
                )
            except FileNotFoundError:
                raise MachineNotFound(self._files.name) from None
            if thaw:
                await self._thaw()
            yield

    async def _thaw(self) -> None:
        if self._files.held.exists():
            from .snapshot import let_go_leftover

            await let_go_leftover(self._backend, self._files)
        if self._files.frozen.exists():
            from .quiesce import thaw_leftover

            await thaw_leftover(self._backend, self._files)

    async def recover(self) -> None:
        """Undo what a killed hostctl left, unless somebody is at it; the guest would hang."""
        if self._files.held.exists() or self._files.frozen.exists():
            with contextlib.suppress(Busy):
                async with self.held("recover", timeout_s=0):
                    pass
