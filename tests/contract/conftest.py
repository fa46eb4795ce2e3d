"""What the suites of several interfaces share."""

import pytest


@pytest.fixture(params=["dash"])
def shell(request: pytest.FixtureRequest) -> str:
    """Return the name of the guest's shell; tests that want another, or each, say so."""
    name: str = request.param
    return name
