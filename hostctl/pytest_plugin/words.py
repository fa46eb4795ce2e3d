"""What a failed test's report says of its machines: sections beside the traceback.

They are part of the failure's text, so that JUnit files, which leave captured output out by
default, have them too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from .. import sync
from ..errors import CommandFailed, ConfigError, HostctlError, MachineNotFound
from ..lifecycle import MachineState
from ..state import last_lines, tail

if TYPE_CHECKING:
    from ..machine import Machine

__all__ = ["Words", "complaint", "shortened"]

LINES: Final = 60  # a panic and its trace, as a boot's failure quotes
LOOK_S: Final = 5.0  # for a guest that may hang: the report is worth no more
AGENT_LOGS: Final = (  # without what dd says of each transfer
    "cat /run/hostctl.*/*.log /dev/shm/hostctl.*/*.log 2>/dev/null |"
    " grep -v -e ' records ' -e 'bytes.*copied'"
)


class Words:
    """Adds sections to reports. `folder` makes a folder for screenshots, once there is one."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder

    def of_error(self, report: pytest.TestReport, error: BaseException | None) -> None:
        """Quote all that a failed command printed: the error's message has but the last line."""
        if isinstance(error, CommandFailed):
            result = error.result
            for name, said in (("stdout", result.stdout), ("stderr", result.stderr)):
                _add(report, f"{name} of {result.command}", last_lines(said, LINES))

    def of_machine(self, report: pytest.TestReport, machine: sync.Machine) -> None:
        """Tell how the machine is, what it said last, and what is on its screen.

        Raises:
            MachineNotFound: it is gone. Any other trouble is told in the report.
        """
        try:
            texts, screen = machine._loop.call(_look(machine._async))
            if screen is not None:
                path = self._folder() / f"{machine.name}.png"
                path.write_bytes(screen)
                texts["screenshot"] = str(path)
        except MachineNotFound:
            raise
        except (HostctlError, OSError) as err:
            texts = {"cannot be looked at": str(err)}
        for title, text in texts.items():
            _add(report, f"vm {machine.name}: {title}", text)

    def of_kept(self, report: pytest.TestReport, machine: sync.Machine) -> None:
        """Say what to do with a machine that stays."""
        ways = (
            f"enter it:   hostctl shell {machine.name}",
            f"remove it:  hostctl delete --force {machine.name}",
        )
        _add(report, f"vm {machine.name}: kept", "\n".join(ways))


def complaint(error: HostctlError) -> str:
    """Say why there is no machine for a test, and what to do about it."""
    lines = [f"no virtual machine for this test: {error}"]
    if error.hint:
        lines.append(f"try: {error.hint}")
    if not isinstance(error, ConfigError | LookupError):
        lines.append('"hostctl doctor" tells what works on this host, and how to mend the rest')
    if console := getattr(error, "console", ""):
        lines += ["", "last lines of the console:", console]
    return "\n".join(lines)


def shortened(error: HostctlError) -> None:
    """Cut the traceback where it enters hostctl, and tell the hint.

    The message says what failed and why; the frames behind it are twenty, and say nothing more.
    """
    error.__cause__, error.__suppress_context__ = None, True
    if error.hint:
        error.add_note(f"try: {error.hint}")
    inside = Path(sync.__file__).parent
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        if Path(last.tb_next.tb_frame.f_code.co_filename).parent == inside:
            last.tb_next = None
            return
        last = last.tb_next


async def _look(machine: Machine) -> tuple[dict[str, str], bytes | None]:
    """Return texts by their titles, and a picture if there is a display."""
    state = await machine.state()
    if not machine.directory.exists():
        raise MachineNotFound(machine.name)
    texts = {} if state is MachineState.RUNNING else {"state": state.value}
    texts["end of its console"] = tail(await machine.fetch_console_log(), LINES)
    screen = None
    if state.is_alive:
        with contextlib.suppress(HostctlError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                screen = await machine.screenshot()
        with contextlib.suppress(HostctlError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                logs = await machine.shell(AGENT_LOGS)
                texts["its agent's log"] = last_lines(logs.stdout, LINES)
    return texts, screen


def _add(report: pytest.TestReport, title: str, text: str) -> None:
    if not text:
        return
    title = " ".join(title.split())
    # What fails has a traceback; some other plugin may have put a text in its place.
    add = getattr(report.longrepr, "addsection", None)
    if add is None:
        report.sections.append((title, text))
    else:
        add(title, text)
