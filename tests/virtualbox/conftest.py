"""One machine in the lab, booted once; a test that needs it as it was gets it restored."""

from collections.abc import Iterator

import pytest

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
