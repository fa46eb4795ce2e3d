"""Large files that break off and go on, through the real agent under four shells."""

import io
import os
import shutil
from pathlib import Path

import pytest

from hostctl import resume
from hostctl.resume import get_resumable, part_of, put_resumable
from hostctl_channels.errors import ChannelReset, TransferFailed
from hostctl_channels.interface import Channel, FileInfo, Progress, PutOptions

PLAIN = PutOptions()
SIZE = 10 * 65536 + 123


class Frail:
    """A channel that breaks at its n-th put or exec, and counts what it moved."""

    def __init__(self, channel: Channel, breaks_at: int) -> None:
        self._channel = channel
        self._left = breaks_at
        self.put_bytes = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._channel, name)

    def _wear(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise ChannelReset("the line broke")

    async def put(
        self,
        source: io.BytesIO,
        size_bytes: int,
        path: bytes,
        options: PutOptions = PLAIN,
        progress: Progress | None = None,
    ) -> FileInfo:
        self._wear()
        self.put_bytes += size_bytes
        return await self._channel.put(source, size_bytes, path, options, progress)

    async def exec(self, *words: object, **options: object) -> object:
        self._wear()
        return await self._channel.exec(*words, **options)  # type: ignore[arg-type]  # passed on


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file of ten blocks a large one."""
    for name in ("PUT_BYTES", "GET_BYTES", "SLOW_BYTES"):
        monkeypatch.setattr(resume, name, 2 * 65536)


def put_frail(frail: Frail, content: bytes, path: bytes) -> object:
    return put_resumable(frail, io.BytesIO(content), len(content), path, PLAIN)  # type: ignore[arg-type]  # it acts as one


@pytest.mark.parametrize("breaks_at", [3, 4, 8])
async def test_a_put_goes_on_where_it_was(channel: Channel, folder: Path, breaks_at: int) -> None:
    content, target = os.urandom(SIZE), folder / "target"
    target.write_bytes(b"old")
    path = os.fsencode(target)
    frail = Frail(channel, breaks_at)
    with pytest.raises(ChannelReset):
        await put_frail(frail, content, path)  # type: ignore[misc]  # a coroutine
    assert target.read_bytes() == b"old"
    again = Frail(channel, 0)
    options = PutOptions(mode=0o640, mtime_s=1e9, verify="sha256")
    await put_resumable(again, io.BytesIO(content), SIZE, path, options)  # type: ignore[arg-type]  # it acts as one
    assert target.read_bytes() == content
    assert (target.stat().st_mode & 0o777, target.stat().st_mtime) == (0o640, 1e9)
    done = frail.put_bytes + again.put_bytes
    assert done <= SIZE + 2 * 65536  # no more than the piece that broke is sent twice
    assert list(folder.glob(".target*")) == []


async def test_a_put_of_another_file_begins_anew(channel: Channel, folder: Path) -> None:
    path = os.fsencode(folder / "target")
    with pytest.raises(ChannelReset):
        await put_frail(Frail(channel, 6), os.urandom(SIZE), path)  # type: ignore[misc]  # a coroutine
    part = folder / os.path.basename(os.fsdecode(part_of(path)))
    assert part.stat().st_size > 0
    content = os.urandom(SIZE)
    await put_resumable(channel, io.BytesIO(content), SIZE, path, PLAIN)
    assert (folder / "target").read_bytes() == content


@pytest.mark.parametrize("breaks_at", [1, 5])
async def test_a_get_goes_on_where_it_was(
    channel: Channel, folder: Path, tmp_path: Path, breaks_at: int
) -> None:
    content, target = os.urandom(SIZE), tmp_path / "target"
    (folder / "source").write_bytes(content)
    path = os.fsencode(folder / "source")
    target.write_bytes(b"old")
    with pytest.raises(ChannelReset):
        await get_resumable(Frail(channel, breaks_at), path, target)  # type: ignore[arg-type]  # it acts as one
    assert target.read_bytes() == b"old"
    moved: list[int] = []
    await get_resumable(channel, path, target, verify="sha256", progress=moved.append)
    assert target.read_bytes() == content
    assert len(moved) == (4 if breaks_at == 5 else 6)
    assert os.listdir(tmp_path) == ["target"]


async def test_a_get_of_what_differs_begins_anew(
    channel: Channel, folder: Path, tmp_path: Path
) -> None:
    content = os.urandom(SIZE)
    (folder / "source").write_bytes(content)
    (tmp_path / ".target.hostctl-part").write_bytes(os.urandom(SIZE + 5))
    await get_resumable(channel, os.fsencode(folder / "source"), tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == content


async def test_the_part_is_no_way_to_another_file(
    channel: Channel, folder: Path, tmp_path: Path
) -> None:
    (folder / "source").write_bytes(b"x" * SIZE)
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".target.hostctl-part").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        await get_resumable(channel, os.fsencode(folder / "source"), tmp_path / "target")
    assert (tmp_path / "precious").read_bytes() == b"mine"


async def test_holes_are_not_sent(channel: Channel, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.seek(3 << 20)
        file.write(b"data")
        file.truncate(8 << 20)
    frail = Frail(channel, 0)
    path = os.fsencode(folder / "inside")
    with source.open("rb") as file:
        await put_resumable(frail, file, 8 << 20, path, PLAIN)  # type: ignore[arg-type]  # it acts as one
    assert frail.put_bytes <= 65536
    assert (folder / "inside").read_bytes() == source.read_bytes()
    assert (folder / "inside").stat().st_blocks * 512 < 1 << 20
    moved: list[int] = []
    await get_resumable(channel, path, tmp_path / "back", progress=moved.append)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    if shutil.which("perl") and not (folder / "applets").exists():  # what tells holes in a guest
        assert len(moved) == 1
    assert (tmp_path / "back").stat().st_blocks * 512 < 1 << 20


async def test_an_error_of_the_guest_has_its_errno(channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed) as caught:
        await get_resumable(channel, b"/no/such", tmp_path / "x")
    assert caught.value.errno == 2
    assert os.listdir(tmp_path) == []
    with pytest.raises(TransferFailed) as caught:
        await get_resumable(channel, b"/tmp", tmp_path / "x")
    assert caught.value.errno == 21
