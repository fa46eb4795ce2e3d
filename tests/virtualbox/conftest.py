"""The lab, and one machine in it, booted once; tests that change it get it restored."""

from collections.abc import Iterator

import pytest

from .laboratory import Lab
from .machine import LabMachine


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Return a VirtualBox that runs for all tests that ask for it, and only for them."""
    with Lab() as lab:
        yield lab


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
