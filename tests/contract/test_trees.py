"""Folders over every channel: live streams or not, fast or not, with our agent or without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.resume import get_resumable, put_resumable
from hostctl.tree import Exclude, Looks, Policy, Remote, get_tree, put_tree, sync_from, sync_to
from hostctl_channels.interface import PutOptions
from tests.trees import looks

from .test_channel import _NEEDS, ENOUGH_S, FACTORIES, Subject

pytestmark = pytest.mark.timeout(3 * ENOUGH_S)


@pytest.fixture(params=[pytest.param(name, marks=_NEEDS.get(name, ())) for name in FACTORIES])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Yield each channel in turn."""
    async with FACTORIES[request.param]() as subject:
        yield subject


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small folder: some channels carry 10 KiB a second."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"content")
    (folder / "program").write_bytes(b"x" * 600)
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("sub/file")
    return folder


async def test_a_folder_goes_in_is_synced_and_comes_back(
    subject: Subject, source: Path, tmp_path: Path
) -> None:
    channel, target = subject.channel, subject.folder + b"/target"
    none, plain = Exclude(), Looks()
    await put_tree(channel, source, target, exclude=none, looks=plain)
    (source / "sub" / "file").write_bytes(b"another one")
    (source / "program").unlink()
    report = await sync_to(channel, source, target, exclude=none, looks=plain, delete=True)
    assert report.changes == (("send", "sub/file"), ("remove", "program"))
    await get_tree(channel, target, tmp_path / "got", policy=Policy())
    assert looks(tmp_path / "got") == looks(source)
    report = await sync_from(channel, target, tmp_path / "got", policy=Policy())
    assert report.changes == ()
    assert await Remote(channel).glob(subject.folder + b"/tar*") == (target,)


async def test_a_file_goes_in_pieces(subject: Subject, source: Path, tmp_path: Path) -> None:
    channel, path = subject.channel, subject.folder + b"/file"
    with (source / "program").open("rb") as file:
        await put_resumable(channel, file, 600, path, PutOptions(mode=0o600), None)
    await get_resumable(channel, path, tmp_path / "back", verify="sha256")
    assert (tmp_path / "back").read_bytes() == b"x" * 600
