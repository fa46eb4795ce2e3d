"""The real agent under four shells: on one line (`twin`), or on many ports (`ports`)."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl_channels.interface import Channel
from tests.twin import EACH_SHELL, NEEDS, PtyTwin, SocketTwin


@pytest.fixture(params=EACH_SHELL)
def shell(request: pytest.FixtureRequest) -> str:
    """Return the name of a shell."""
    name: str = request.param
    return name


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder that everybody may enter and fill, as the guest's /tmp."""
    path = Path(tempfile.mkdtemp(prefix="twin-", dir=_open_to_all()))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def _open_to_all() -> str:
    """Return a folder for temporary files that other users may enter too."""
    for path in (tempfile.gettempdir(), "/var/tmp", "/dev/shm"):
        if os.path.isdir(path) and os.stat(path).st_mode & 0o001:
            return path
    return tempfile.gettempdir()


@pytest.fixture
async def twin(shell: str, folder: Path) -> AsyncIterator[SocketTwin]:
    """Return a guest with one port."""
    twin = SocketTwin(shell, folder)
    yield twin
    await twin.close()


@pytest.fixture
async def ports(shell: str, folder: Path) -> AsyncIterator[PtyTwin]:
    """Return a guest with all kinds of ports."""
    twin = PtyTwin(shell, folder)
    yield twin
    await twin.close()


@pytest.fixture
async def guest(folder: Path) -> AsyncIterator[PtyTwin]:
    """Return a guest whose sh is dash; its agent answers."""
    twin = PtyTwin("dash", folder)
    await twin.channel.connect(20)  # an agent that has not begun cannot tidy up
    yield twin
    await twin.close()


@pytest.fixture
def nobody() -> str | None:
    """Return a user to whom permissions mean something; None: we are one."""
    return "nobody" if os.geteuid() == 0 else None


@pytest.fixture
def root() -> None:
    """Skip what only root may do."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to change users and mount file systems")


_WAYS = [("ash", PtyTwin), ("dash", PtyTwin), ("bash", SocketTwin), ("mksh", SocketTwin)]


@pytest.fixture(
    params=[pytest.param(way, marks=pytest.mark.needs(NEEDS[way[0]]), id=way[0]) for way in _WAYS]
)
async def channel(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Channel]:
    """Return a guest's channel: with live streams, or without."""
    shell, kind = request.param
    twin = kind(shell, folder)
    await twin.channel.connect(30)
    yield twin.channel
    await twin.close()
