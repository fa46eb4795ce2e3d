"""File systems at rest around a snapshot: frozen through QEMU's guest agent, and thawed whatever
happens.

A guest whose file systems stay frozen hangs on its first write. So a mark lies in the machine's
folder while they may be, and whoever uses the machine next, after a kill of us, thaws them. A
snapshot that was saved frozen is frozen again when it is restored: its tag is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from hostctl_channels.errors import ChannelError, HostctlError, Refused

from .connect import Site, guest_agent
from .state import MachineFiles, read_json, write_json

if TYPE_CHECKING:
    from hostctl_channels.qga import QgaChannel

    from .backends.interface import Backend

__all__ = ["forget", "mark_restored", "open_agent", "quiesced", "thaw_leftover"]

logger = logging.getLogger(__name__)

CONNECT_S = 15.0  # an agent that runs answers in milliseconds; a loaded host may need seconds
THAW_S = 60.0  # to try again and again, while a loaded host restores or saves
LEFTOVER_S = 20.0  # the same, where somebody waits for something else


@asynccontextmanager
async def quiesced(backend: Backend, files: MachineFiles, tag: str) -> AsyncIterator[None]:
    """Hold the guest's file systems frozen, while snapshot `tag` is made inside.

    Raises:
        Refused: no guest agent answers, or it may not freeze; nothing was frozen.
        RequestFailed: the guest could not freeze; nothing is frozen.
    """
    async with open_agent(backend, files) as agent, _frozen(files, agent):
        with _noted(files, tag):
            yield


@asynccontextmanager
async def open_agent(backend: Backend, files: MachineFiles) -> AsyncIterator[QgaChannel]:
    """Yield QEMU's guest agent, whatever channel else is used: only it can freeze."""
    agent = guest_agent(Site(await backend.endpoints(), files.runtime, files.pulse()))
    try:
        yield agent
    finally:
        await agent.close()


async def thaw_leftover(backend: Backend, files: MachineFiles) -> None:
    """Thaw what a killed hostctl, or a restored snapshot, left frozen. The caller holds the lock.

    It is only warned of when that fails; the mark stays, for the next one to try, as it does while
    the machine is paused.
    """
    if not (await backend.state()).is_alive:
        files.frozen.unlink(missing_ok=True)
    elif not files.pulse().suspended():
        logger.info("machine %s: thawing its file systems", files.name)
        async with open_agent(backend, files) as agent:
            try:
                await _thaw(files, agent, LEFTOVER_S)
            except (HostctlError, TimeoutError) as err:
                logger.warning("machine %s: its file systems may be frozen: %s", files.name, err)


def mark_restored(files: MachineFiles, tag: str) -> None:
    """Note that what comes back with snapshot `tag` is frozen, if it was saved so."""
    if tag in (read_json(files.quiesced) or {}):
        files.frozen.touch(mode=0o600)


def forget(files: MachineFiles, tag: str) -> None:
    """Forget that a snapshot was saved with frozen file systems, if it was."""
    notes = read_json(files.quiesced) or {}
    if notes.pop(tag, None):
        write_json(files.quiesced, notes)


@asynccontextmanager
async def _frozen(files: MachineFiles, agent: QgaChannel) -> AsyncIterator[None]:
    try:
        await agent.connect(CONNECT_S)
    except ChannelError as err:
        raise Refused(
            f"cannot quiesce machine {files.name!r}: {err}",
            "fsfreeze",
            hint="run qemu-guest-agent in the guest, or save without --quiesce",
        ) from err
    files.frozen.touch(mode=0o600)
    try:
        count = await agent.freeze()
        logger.info("machine %s: %d file systems are frozen", files.name, count)
        yield
    finally:
        # Shielded: who is cancelled twice must not leave a guest that hangs.
        await asyncio.shield(asyncio.ensure_future(_thaw(files, agent)))


@contextmanager
def _noted(files: MachineFiles, tag: str) -> Iterator[None]:
    """Note that snapshot `tag`, which is made inside, is one of frozen file systems.

    Before it is made: who is killed in between leaves a note too many, which does no harm.
    """
    write_json(files.quiesced, {**(read_json(files.quiesced) or {}), tag: True})
    try:
        yield
    except BaseException:
        forget(files, tag)
        raise


async def _thaw(files: MachineFiles, agent: QgaChannel, limit_s: float = THAW_S) -> None:
    async with asyncio.timeout(limit_s):
        while True:
            try:
                await agent.thaw()
                break
            except ChannelError as err:
                logger.info("machine %s: thaw: %s", files.name, err)
                await asyncio.sleep(0.5)
    with contextlib.suppress(FileNotFoundError):
        files.frozen.unlink()
