import json
import subprocess
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec
from hostctl.backends.qemu import disks, snapshot
from hostctl.errors import ConfigError
from hostctl.state import Home, MachineFiles

pytestmark = pytest.mark.needs("qemu-img")


@pytest.fixture
def files(tmp_path: Path) -> MachineFiles:
    files = Home(tmp_path / "s", tmp_path / "r").open().files("web")
    files.directory.mkdir()
    return files


def img(*words: str | Path) -> str:
    command = ["qemu-img", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


async def overlay(files: MachineFiles, disk: DiskSpec) -> dict[str, object]:
    await disks.create_disks(files, [disk])
    info = img("info", "--output=json", files.disks / "disk0.qcow2")
    found: dict[str, object] = json.loads(info)
    return found


async def test_an_empty_disk_has_the_size_asked_for(files: MachineFiles) -> None:
    info = await overlay(files, DiskSpec(size_bytes=3 << 20))
    assert (info["virtual-size"], info.get("backing-filename")) == (3 << 20, None)
    (report,) = await disks.describe_disks(files, [DiskSpec(size_bytes=3 << 20)])
    assert (report.base, report.virtual_bytes) == (None, 3 << 20)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_an_overlay_names_its_base_and_its_format(
    files: MachineFiles, tmp_path: Path, kind: str
) -> None:
    base = tmp_path / "base, with comma"
    img("create", "-q", "-f", kind, base, "1M")
    before = base.read_bytes()
    info = await overlay(files, DiskSpec(base))
    assert (info["backing-filename"], info["backing-filename-format"]) == (str(base), kind)
    assert base.read_bytes() == before


async def test_a_raw_disk_whose_guest_wrote_a_qcow2_header_is_not_believed(
    files: MachineFiles, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 512)
    for name in ("disk.raw", "disk"):
        img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", tmp_path / name, "1M")
        with pytest.raises(ConfigError, match="cannot be trusted") as caught:
            await disks.create_disks(files, [DiskSpec(tmp_path / name)])
        assert caught.value.hint is not None
        assert "format" in caught.value.hint
        files.disks.rmdir()
    info = await overlay(files, DiskSpec(tmp_path / "disk.raw", format="raw"))
    assert info["backing-filename-format"] == "raw"


async def test_a_missing_base_is_told(files: MachineFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        await disks.create_disks(files, [DiskSpec(tmp_path / "nothing")])


async def test_a_new_machine_has_no_snapshots(files: MachineFiles) -> None:
    await disks.create_disks(files, [])
    assert await snapshot.list_snapshots(files) == ()


async def test_deleting_at_rest_is_repeatable(files: MachineFiles) -> None:
    await disks.create_disks(files, [DiskSpec(size_bytes=1 << 20)])
    for path in (files.vmstate, files.disks / "disk0.qcow2"):
        img("snapshot", "-q", "-c", "a", path)
    assert [found.tag for found in await snapshot.list_snapshots(files)] == ["a"]
    for _ in range(2):
        await snapshot.delete_at_rest(files, 1, "a")
    assert await snapshot.list_snapshots(files) == ()
    assert "a" not in img("snapshot", "-l", files.disks / "disk0.qcow2")
