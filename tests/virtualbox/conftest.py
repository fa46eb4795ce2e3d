"""The lab for its tests: a machine that is booted once, and restored; and an empty hostctl."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.controller import Controller
from hostctl.state import Home

from .laboratory import Lab
from .machine import LabMachine, park


@pytest.fixture(scope="session")
def booted(lab: Lab) -> Iterator[LabMachine]:
    """Return a machine that has booted, in whatever state the last test left it."""
    with LabMachine(lab, "tiny") as machine:
        machine.boot()
        yield machine


@pytest.fixture
def ready(booted: LabMachine) -> LabMachine:
    """Return the machine with its services started, restored only if the last test changed that."""
    booted.ensure()
    return booted


@pytest.fixture(scope="module")
def alone() -> None:
    """End the machine above, for tests that have others."""
    park()


@pytest.fixture
def place(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Lead hostctl to the lab."""
    for name, value in lab.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOSTCTL_VBOX_API", "api")
    return lab


@pytest.fixture
async def controller(place: Lab) -> AsyncIterator[Controller]:
    """Yield a controller of an empty home; all machines are gone in the end."""
    with tempfile.TemporaryDirectory(prefix="hx-") as root:
        async with Controller(Home(Path(root) / "s", Path(root) / "r")) as controller:
            yield controller
            for machine in controller.machines():
                await machine.delete(force=True)
        assert "hostctl-" not in place.manage("list", "vms")
