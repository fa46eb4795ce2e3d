"""Files through one port: names, sizes, attributes, and what is left after a failure."""

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.errors import ChannelError, LocalProtocolError, ShortSource, TransferFailed
from hostctl_channels.interface import FileInfo, PutOptions
from hostctl_channels.links.faulty import Faults, FaultyLink
from hostctl_channels.links.interface import Link
from hostctl_channels.ports import WORK, PortPool
from tests.twin import Dial, SocketTwin

NAMES = [
    b"plain",
    b"a b",
    b" lead and trail ",
    b"new\nline",
    b"ends in newline\n",
    b"'quotes\" and $dollar `tick`",
    b"back\\slash",
    b"-rf",
    b"--help",
    b"*?[a]",
    b"\xff\xfe no utf-8 \x80",
    "å∂ƒ".encode(),
    bytes(n for n in range(1, 256) if n != 47),
    b"x" * 255,
    b"#",
    b"~",
    b"a=b",
]
BLOCK = 262144


async def put(
    twin: SocketTwin,
    path: Path | bytes,
    data: bytes,
    options: PutOptions = PutOptions(),  # noqa: B008 frozen
) -> FileInfo:
    return await twin.channel.put(io.BytesIO(data), len(data), os.fsencode(path), options)


async def get(
    twin: SocketTwin, path: Path | bytes, **options: bool | str
) -> tuple[FileInfo, bytes]:
    sink = io.BytesIO()
    info = await twin.channel.get(os.fsencode(path), sink, **options)  # type: ignore[arg-type]  # a shorthand
    return info, sink.getvalue()


def content(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.fixture
def files(twin: SocketTwin) -> Path:
    """Return a folder for files alone."""
    path = twin.folder / "files"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    return path


async def test_any_name_goes_in_and_out(twin: SocketTwin, files: Path) -> None:
    for name in NAMES:
        path = os.fsencode(files) + b"/" + name
        await put(twin, path, b"<" + name + b">")
        assert (await get(twin, path))[1] == b"<" + name + b">"
    assert sorted(os.listdir(os.fsencode(files))) == sorted(NAMES)


async def test_folders_have_any_name_too(twin: SocketTwin, files: Path) -> None:
    for name in NAMES:
        folder = os.fsencode(files) + b"/" + name
        os.mkdir(folder)
        await put(twin, folder + b"/" + name, name)
        assert os.listdir(folder) == [name]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 << 20])
async def test_any_size_goes_in_and_out(twin: SocketTwin, files: Path, size: int) -> None:
    data, path = content(size), files / "file"
    assert (await put(twin, path, data)).size_bytes == size
    assert path.read_bytes() == data
    info, got = await get(twin, path)
    assert (info.size_bytes, got) == (size, data)
    assert os.listdir(files) == ["file"]


async def test_content_that_looks_like_frames_is_data(twin: SocketTwin, files: Path) -> None:
    data = (b"\x9dHR\0" + b"0" * 16 + b"\0\0\0\0" + b"\nN cdef\n" + bytes(9)) * 999
    await put(twin, files / "file", data)
    assert (await get(twin, files / "file"))[1] == data


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o4755, 0o000, 0o444, 0o666, 0o777])
async def test_mode_is_kept_both_ways(twin: SocketTwin, files: Path, mode: int) -> None:
    path = files / "file"
    await put(twin, path, b"x", PutOptions(mode=mode))
    assert path.stat().st_mode & 0o7777 == mode
    if os.geteuid() == 0 or mode & 0o400:
        info, _ = await get(twin, path, stat=True)
        assert info.mode == mode


async def test_mode_is_644_by_default_and_a_secret_is_never_open(
    twin: SocketTwin, files: Path
) -> None:
    await put(twin, files / "file", b"x")
    assert (files / "file").stat().st_mode & 0o7777 == 0o644


async def test_mtime_is_kept_both_ways(twin: SocketTwin, files: Path) -> None:
    await put(twin, files / "file", b"x", PutOptions(mtime_s=1234567890))
    assert (files / "file").stat().st_mtime == 1234567890
    info, _ = await get(twin, files / "file", stat=True)
    assert info.mtime_s == 1234567890


@pytest.mark.usefixtures("root")
async def test_owner_is_set(twin: SocketTwin, files: Path) -> None:
    await put(twin, files / "file", b"x", PutOptions(owner="nobody"))
    assert (files / "file").stat().st_uid == 65534
    with pytest.raises(TransferFailed):
        await put(twin, files / "file", b"y", PutOptions(owner="no-such-user"))
    assert (files / "file").read_bytes() == b"x"
    assert os.listdir(files) == ["file"]


async def test_verify_compares_digests_both_ways(twin: SocketTwin, files: Path) -> None:
    data = content(BLOCK + 5)
    digest = hashlib.sha256(data).hexdigest()
    assert (await put(twin, files / "file", data, PutOptions(verify="sha256"))).sha256 == digest
    info, _ = await get(twin, files / "file", verify="sha256")
    assert info.sha256 == digest


async def test_a_wrong_digest_leaves_the_old_file(
    twin: SocketTwin, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostctl_channels.wire import messages

    (files / "file").write_bytes(b"old")
    right = messages.verdict
    monkeypatch.setattr(messages, "verdict", lambda digest: right(digest[::-1]))
    with pytest.raises(TransferFailed, match="not what was sent"):
        await put(twin, files / "file", b"new", PutOptions(verify="sha256"))
    assert (files / "file").read_bytes() == b"old"
    assert os.listdir(files) == ["file"]


async def test_an_existing_target_is_replaced_whole(twin: SocketTwin, files: Path) -> None:
    (files / "file").write_bytes(b"old and longer")
    held = (files / "file").open("rb")
    await put(twin, files / "file", b"new")
    assert (files / "file").read_bytes() == b"new"
    with held:
        assert held.read() == b"old and longer"


async def test_get_of_a_file_too_large_fails(twin: SocketTwin, files: Path) -> None:
    twin.feels_pipe = False
    (files / "file").write_bytes(content(3 << 20))
    with pytest.raises(TransferFailed) as caught:
        await twin.channel.get(os.fsencode(files / "file"), io.BytesIO(), max_bytes=1000)
    assert caught.value.errno == errno.EFBIG
    await twin.channel.ping()


async def test_a_source_that_ends_early_leaves_the_old_file(twin: SocketTwin, files: Path) -> None:
    twin.feels_pipe = False
    (files / "file").write_bytes(b"old")
    with pytest.raises(ShortSource):
        await twin.channel.put(io.BytesIO(b"abc"), 10, os.fsencode(files / "file"))
    await twin.channel.ping()
    assert (files / "file").read_bytes() == b"old"


async def test_impossible_paths_are_refused_here(twin: SocketTwin) -> None:
    for path in (b"", b"a\0b", b"/" + b"x" * 5000):
        with pytest.raises(LocalProtocolError):
            await put(twin, path, b"x")
        with pytest.raises(LocalProtocolError):
            await get(twin, path)


# --- what the guest's system refuses --------------------------------------------------------------


async def refused_put(twin: SocketTwin, path: Path | bytes, size: int = 10) -> int:
    with pytest.raises(TransferFailed) as caught:
        await put(twin, path, content(size))
    assert caught.value.filename == os.fsdecode(path)
    assert str(caught.value)
    await twin.channel.ping()
    assert caught.value.errno is not None
    return caught.value.errno


async def refused_get(twin: SocketTwin, path: Path) -> int:
    with pytest.raises(TransferFailed) as caught:
        await get(twin, path)
    await twin.channel.ping()
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize("size", [0, 10, BLOCK, 3 * BLOCK + 7, 6 << 20])
async def test_a_missing_folder_is_enoent(twin: SocketTwin, files: Path, size: int) -> None:
    assert await refused_put(twin, files / "none" / "file", size) == errno.ENOENT
    assert await refused_get(twin, files / "none") == errno.ENOENT


async def test_a_folder_is_eisdir(twin: SocketTwin, files: Path) -> None:
    assert await refused_put(twin, files) == errno.EISDIR
    assert await refused_put(twin, os.fsencode(files) + b"/") == errno.EISDIR
    assert await refused_get(twin, files) == errno.EISDIR


async def test_a_file_as_a_folder_is_enotdir(twin: SocketTwin, files: Path) -> None:
    (files / "file").touch()
    assert await refused_put(twin, files / "file" / "x") in (errno.ENOTDIR, errno.ENOENT)
    assert await refused_get(twin, files / "file" / "x") == errno.ENOTDIR


async def test_a_name_too_long_is_enametoolong(twin: SocketTwin, files: Path) -> None:
    (files / "file").touch()
    assert await refused_put(twin, files / ("x" * 256)) == errno.ENAMETOOLONG
    assert await refused_get(twin, files / ("x" * 256)) == errno.ENAMETOOLONG
    assert os.listdir(files) == ["file"]


async def test_a_closed_folder_is_eacces(shell: str, folder: Path, nobody: str | None) -> None:
    closed = folder / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"old")
    (closed / "file").chmod(0)
    closed.chmod(0o555)
    twin = SocketTwin(shell, folder, user=nobody)
    try:
        assert await refused_put(twin, closed / "file") == errno.EACCES
        assert await refused_get(twin, closed / "file") == errno.EACCES
    finally:
        await twin.close()
        closed.chmod(0o777)
        (closed / "file").chmod(0o666)
    assert (closed / "file").read_bytes() == b"old"


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory."""
    target = folder / "mount"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a file system here: run the tests as root")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("size", [BLOCK + 1, 2 << 20, 7 << 20])
async def test_a_full_disk_is_enospc_and_leaves_the_old_file(twin: SocketTwin, size: int) -> None:
    with mounted(twin.folder, "size=300k") as disk:
        (disk / "file").write_bytes(b"o" * 100_000)
        assert await refused_put(twin, disk / "file", size) == errno.ENOSPC
        assert (disk / "file").read_bytes() == b"o" * 100_000
        for _ in range(100):  # a long body is cut by hanging up: its agent cleans up by itself
            if os.listdir(disk) == ["file"]:
                break
            await asyncio.sleep(0.1)
        assert os.listdir(disk) == ["file"]


@pytest.mark.usefixtures("root")
async def test_a_read_only_disk_is_erofs(twin: SocketTwin) -> None:
    with mounted(twin.folder, "ro") as disk:
        assert await refused_put(twin, disk / "file") == errno.EROFS


# --- a line that breaks ---------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [70, 130, 1000, BLOCK, BLOCK + 500, 799_999])
async def test_a_put_cut_anywhere_leaves_the_old_file(
    twin: SocketTwin, files: Path, cut: int
) -> None:
    twin.feels_pipe = False
    (files / "file").write_bytes(b"old")

    async def faulty(path: Path) -> Link:
        return FaultyLink(await twin.open(path), Faults(cut_send_at=cut))

    pool = PortPool({WORK[0]: Dial(faulty, twin.folder)}, twin.folder)
    channel = AgentChannel(pool, twin.pulse)
    source, path = io.BytesIO(content(800_000)), os.fsencode(files / "file")
    with pytest.raises(ChannelError):
        await asyncio.wait_for(channel.put(source, 800_000, path), 20)
    await channel.close()
    assert not twin.family.end(10)
    assert (files / "file").read_bytes() == b"old"
    assert os.listdir(files) == ["file"]
