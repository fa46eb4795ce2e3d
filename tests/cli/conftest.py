"""Fixtures of the command line's tests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import hostctl_images
from hostctl_images import Image

from .fakes import FakeController, FakeMachine, installed


@pytest.fixture
def controller() -> Iterator[FakeController]:
    """A controller with the stopped machines `db` and `web`, installed in the command line."""
    with installed(FakeController("web", "db")) as fake:
        yield fake


@pytest.fixture
def web(controller: FakeController) -> FakeMachine:
    """The machine `web` of `controller`."""
    return controller.machine("web")


@pytest.fixture
def built_tiny(monkeypatch: pytest.MonkeyPatch) -> Image:
    """Let the image `tiny` be built."""
    image = Image(
        name="tiny",
        kernel=Path("/cache/tiny/vmlinuz"),
        initrd=Path("/cache/tiny/initrd"),
        append="quiet",
        digest="0123456789abcdef",
        size_bytes=9 * 2**20,
        built=datetime(2026, 1, 2, tzinfo=UTC),
    )
    monkeypatch.setattr(hostctl_images, "available", lambda: (image,))
    monkeypatch.setattr(hostctl_images, "recipes", lambda: ("big", "tiny"))
    return image
