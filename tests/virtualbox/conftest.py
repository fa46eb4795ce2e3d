"""One machine in the lab, booted once; tests that change it get it restored."""

from collections.abc import Iterator

import pytest

from .laboratory import Lab
from .machine import LabMachine


@pytest.fixture(scope="session")
def booted(lab: Lab) -> Iterator[LabMachine]:
    """Return a machine that has booted, in whatever state the last test left it."""
    with LabMachine(lab, "tiny") as machine:
        machine.boot()
        yield machine


@pytest.fixture(scope="session")
def ready(booted: LabMachine) -> LabMachine:
    """Return the machine with its services started; who changes that restores it."""
    booted.restore()
    return booted
