"""Somebody who tests with the plugin."""

import sys
from dataclasses import dataclass
from typing import Final

import pytest

from hostctl.state import Home
from hostctl.sync import Controller

# Other plugins of ours are not what is tested, and each takes a part of a second.
ALONE: Final = [f"-pno:{name}" for name in ("asyncio", "hypothesispytest", "timeout", "pytest_cov")]
TIMEOUT_S: Final = 200


@dataclass(frozen=True, slots=True)
class User:
    """A folder of tests, and a home of machines."""

    pytester: pytest.Pytester
    home: Home

    def run(self, *words: str) -> pytest.RunResult:
        """Run pytest in the folder, in a process of its own; a warning is an error."""
        return self.pytester.run(*self.command(*words), timeout=TIMEOUT_S)

    def command(self, *words: str) -> list[str]:
        """Return the command line of `run`."""
        return [sys.executable, "-m", "pytest", "-W", "error", *ALONE, *words]

    def machines(self) -> tuple[str, ...]:
        """Return the names of the machines that there are."""
        with Controller(self.home) as controller:
            return controller.names("*", allow_empty=True)
