"""On-clone scripts: what makes a clone another machine than its brothers, before anybody uses it.

Clones of a template have its host name, its machine id and its keys. A script kept with the
template, or given with the clone, changes them; it is the guest's /bin/sh that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .errors import ConfigError, HookFailed

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["MAX_SCRIPT", "check_script", "run_scripts"]

MAX_SCRIPT: Final = 64 * 1024  # it travels as one argument, and Linux takes 128 KiB for one


def check_script(script: str | None) -> str | None:
    """Return `script` if it can be run in a clone. Raises ConfigError."""
    if script is not None and ("\0" in script or len(script.encode(*_CODEC)) > MAX_SCRIPT):
        raise ConfigError(
            f"an on-clone script is text of at most {MAX_SCRIPT // 1024} KiB",
            hint="put the rest into the template, and call it",
        )
    return script


async def run_scripts(machine: Machine, scripts: Iterable[str | None], timeout_s: float) -> None:
    """Run each in the machine; `$1` is the machine's name.

    Raises:
        HookFailed: one did not end with status 0, or not in time; the next ones were not run.
    """
    for script in scripts:
        if script is not None:
            words = ("sh", "-c", script, "on-clone", machine.name)
            result = await machine.exec(*words, timeout_s=timeout_s)
            if not result.exit.ok:
                raise HookFailed(machine.name, result)


_CODEC: Final = ("utf-8", "surrogateescape")
