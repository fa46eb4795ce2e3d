"""Snapshots of one machine: saved, at rest if wished, and brought back as a cut in its timeline.

Owns the order of a restore, and that what was saved at rest is thawed when it comes back. Who may
do it when, what the journal is told, and the guest's clock afterwards are machine.py's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hostctl_channels import ports

from . import quiesce
from .errors import BackendError, SnapshotExists, SnapshotNotFound
from .lifecycle import MachineState

if TYPE_CHECKING:
    from .backends.interface import Backend
    from .backends.report import Snapshot
    from .state import MachineFiles

__all__ = ["Snapshots", "let_go_leftover"]

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 300.0  # 0.4 s for 256 MiB here; a large guest on a slow disk needs minutes


async def let_go_leftover(backend: Backend, files: MachineFiles) -> None:
    """Let a guest go on that a killed hostctl held still, to save it or to bring it back.

    The caller holds the lock.
    """
    if (await backend.state()) is MachineState.RUNNING:
        logger.info("machine %s: letting it go on", files.name)
        await backend.resume()
    files.held.unlink(missing_ok=True)


class Snapshots:
    """The snapshots. Who calls a method holds the machine's lock, and has settled it."""

    def __init__(self, backend: Backend, files: MachineFiles) -> None:
        self._backend = backend
        self._files = files
        self._pulse = files.pulse()

    async def save(self, tag: str) -> None:
        """Save the living machine. Raises SnapshotExists; on failure there is no `tag`."""
        await self._backend.save_snapshot(tag, TIMEOUT_S)

    async def save_quiesced(self, tag: str) -> None:
        """Save it while its guest's file systems are frozen.

        Raises:
            As `save`; Refused: they cannot be frozen, and nothing was saved.
        """
        if await self._found(tag) is not None:
            raise SnapshotExists(self._files.name, tag)
        async with quiesce.quiesced(self._backend, self._files, tag):
            await self.save(tag)

    async def restore(self, tag: str, state: MachineState) -> Snapshot:
        """Bring `tag` back into the machine, which is in `state`; it goes on unless saved paused.

        Raises:
            SnapshotNotFound: no such tag; nothing was done.
            BackendError: the load failed; what ran goes on as before, what was stopped is stopped.
        """
        snapshot = await self._found(tag)
        if snapshot is None:
            raise SnapshotNotFound(self._files.name, tag)
        # Cut before and after: whoever connects in between must notice too, and a hostctl
        # killed half way must have told everyone.
        self._pulse.cut()
        quiesce.mark_restored(self._files, tag)
        await self._bring_back(tag, state)
        ports.mark_restored(self._files.runtime)
        self._pulse.cut()
        self._pulse.set_suspended(snapshot.paused)
        if not snapshot.paused:
            await self._backend.resume()
            if self._files.frozen.exists():
                await quiesce.thaw_leftover(self._backend, self._files)
        return snapshot

    async def delete(self, tag: str) -> None:
        """Drop `tag`, whether the machine runs or not."""
        await self._backend.delete_snapshot(tag, TIMEOUT_S)
        quiesce.forget(self._files, tag)

    async def _found(self, tag: str) -> Snapshot | None:
        found = await self._backend.snapshots()
        return next((snapshot for snapshot in found if snapshot.tag == tag), None)

    async def _bring_back(self, tag: str, state: MachineState) -> None:
        """Load `tag` into the machine as it is, or into a new run of it when it is down."""
        if state.is_alive:
            try:
                return await self._backend.load_snapshot(tag, TIMEOUT_S)
            except BackendError:
                # One that dies just now is as good as one that was down before.
                if (await self._backend.settle()).is_alive:
                    raise
        await self._launch_into(tag)

    async def _launch_into(self, tag: str) -> None:
        """Start a stopped machine frozen, and load `tag` in place of a boot."""
        await self._backend.launch(frozen=True)
        try:
            await self._backend.load_snapshot(tag, TIMEOUT_S)
        except BaseException:
            await self._backend.kill()
            raise
