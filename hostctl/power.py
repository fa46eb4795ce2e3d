"""A machine between off and on: waited for on its way up, asked politely on its way down.

Owns what counts as booted, what is told of a boot that failed, and in which order a guest is asked
to end. Whether it may be started or stopped, and the force when asking did not help, are
machine.py's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from .errors import BackendError, BootFailed, HostctlError

if TYPE_CHECKING:
    from .backends.interface import Backend
    from .state import MachineFiles

__all__ = ["shut_down", "wait_ready"]

logger = logging.getLogger(__name__)

BUTTON_S: Final = 5.0  # a guest that heeds the button starts to go at once; then its agent is asked
GONE_S: Final = 0.2

# A guest with an init is asked properly; one whose init is a script only obeys -f.
POWER_OFF: Final = "(poweroff || shutdown -h now; sleep 3; sync; poweroff -f) >/dev/null 2>&1 &"


async def wait_ready(
    backend: Backend,
    files: MachineFiles,
    connect: Callable[[float], Coroutine[Any, Any, None]],
    timeout_s: float,
) -> None:
    """Wait until the agent answers `connect`, or the hypervisor ends, or time is up.

    Raises:
        BootFailed: it did not answer; the last words of both are quoted.
    """
    connecting = asyncio.ensure_future(connect(timeout_s))
    dying = asyncio.ensure_future(backend.wait_gone(timeout_s))
    try:
        await asyncio.wait((connecting, dying), return_when=asyncio.FIRST_COMPLETED)
        error = connecting.exception() if connecting.done() else None
        if connecting.done() and error is None:
            files.answered.touch()
            return
        raise await _boot_failed(backend, files, error, timeout_s) from error
    finally:
        for task in (connecting, dying):
            task.cancel()
        await asyncio.gather(connecting, dying, return_exceptions=True)


async def shut_down(
    backend: Backend,
    files: MachineFiles,
    shell: Callable[[str], Awaitable[object]],
    timeout_s: float,
) -> bool:
    """Ask in all polite ways, the last by the guest's own `shell`; return whether it is gone."""
    deadline = time.monotonic() + timeout_s
    try:
        await backend.power_down()
        files.pulse().set_suspended(False)
    except BackendError as err:
        logger.info("machine %s: power button: %s", files.name, err)
    if await backend.wait_gone(min(BUTTON_S, timeout_s / 2)):
        return True
    left_s = deadline - time.monotonic()
    try:
        async with asyncio.timeout(left_s):
            await shell(POWER_OFF)
    except (HostctlError, TimeoutError) as err:
        logger.info("machine %s: poweroff by its agent: %s", files.name, err)
    return await backend.wait_gone(max(0.0, deadline - time.monotonic()))


async def _boot_failed(
    backend: Backend, files: MachineFiles, error: BaseException | None, timeout_s: float
) -> BootFailed:
    hint = f"hostctl console {files.name}"
    # The line breaks a moment before the process is gone.
    if await backend.wait_gone(GONE_S):
        what, hint = "it ended before its agent answered", f"see {files.console_log}"
    elif error is None or isinstance(error, TimeoutError):
        what = f"its agent did not answer within {timeout_s:g} s"
    else:
        what = f"its agent cannot be reached: {error}"
    stderr, console = await backend.last_words()
    said = f"; its console says: {_telling(console)}" if console else "; its console is empty"
    return BootFailed(
        f"machine {files.name!r}: {what}{said}", stderr=stderr, console=console, hint=hint
    )


def _telling(console: str) -> str:
    """Return the line that says most: a panic, before the trace that follows it; else the last."""
    lines = console.splitlines()
    return next((line for line in lines if "Kernel panic" in line), lines[-1])
