"""Where a command meets the floor below: an event loop, a Controller, and the signals that end it.

Tests put their own Controller here.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final

from hostctl.connect import AUTO
from hostctl.controller import Controller
from hostctl.machine import Machine

from .exits import Exit

_ENDS: Final = {signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.HANGUP}


def open_controller() -> Controller:
    """Return the user's controller, to be entered with `async with`."""
    return Controller()


def machine(controller: Controller, name: str, channel: str) -> Machine:
    """Return a machine, reached by `channel` as it was typed."""
    found = controller.machine(name)
    if channel != AUTO:
        found.use_channel(channel)
    return found


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a command to its end. SIGTERM and SIGHUP cancel it, so that it can tidy up."""
    return asyncio.run(_until_told(main))


async def _until_told(main: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    told: list[Exit] = []

    def tell(code: Exit) -> None:
        told.append(code)
        task.cancel()

    for number, code in _ENDS.items():
        loop.add_signal_handler(number, tell, code)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            return told[0]
        raise
    finally:
        for number in _ENDS:
            loop.remove_signal_handler(number)
