"""One home for all runs, so that each template is made once; its first is made by two workers."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostctl_images
from hostctl.state import Home
from hostctl.sync import Controller
from hostctl_images.image import cache_folder

from .user import User


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """Return a home that is removed, with all machines, at the end."""
    # Not tmp_path: its long name would not leave room for the sockets' paths.
    with tempfile.TemporaryDirectory(prefix="hp-") as root:
        home = Home(Path(root, "s"), Path(root, "r"))
        hostctl_images.build("tiny", progress=logging.info)
        yield home
        with Controller(home) as controller:
            for machine in controller.machines():
                machine.delete(force=True)


@pytest.fixture(scope="session")
def cache() -> Path:
    """Return where images are; each test of somebody else's has a HOME of its own."""
    return cache_folder()


@pytest.fixture
def user(
    cache: Path, pytester: pytest.Pytester, home: Home, monkeypatch: pytest.MonkeyPatch
) -> Iterator[User]:
    """Return somebody with a folder of tests; no machine is left when the test has ended."""
    monkeypatch.setenv("HOSTCTL_STATE_DIR", str(home.state))
    monkeypatch.setenv("HOSTCTL_RUNTIME_DIR", str(home.runtime))
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(cache))
    user = User(pytester, home)
    yield user
    assert user.machines() == ()
