from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec
from hostctl.backends.virtualbox.disks import DVD, HARD_DISK, is_cd, kind_of, make_disks
from hostctl.backends.virtualbox.vdi import SIGNATURE, SIGNATURE_AT
from hostctl.errors import ConfigError

CONTENTS = {
    "vdi": SIGNATURE.rjust(SIGNATURE_AT + 4, b"\0").ljust(4096, b"\0"),
    "vmdk": b"KDMV".ljust(4096, b"\0"),
    "vhd": bytes(4096) + b"conectix".ljust(512, b"\0"),
    "iso": b"CD001".rjust(32769 + 5, b"\0"),
    "img": b"boot".ljust(4096, b"\0"),
}


def image(folder: Path, suffix: str, content: str = "") -> Path:
    path = folder / f"base.{suffix}"
    path.write_bytes(CONTENTS[content or suffix])
    return path


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_format_is_told_by_name_and_content(tmp_path: Path, suffix: str) -> None:
    expected = "raw" if suffix == "img" else suffix
    assert kind_of(DiskSpec(image(tmp_path, suffix))) == expected


def test_a_name_that_its_content_belies_must_be_told(tmp_path: Path) -> None:
    base = image(tmp_path, "img", "vdi")  # a raw disk's content belongs to its guest
    with pytest.raises(ConfigError, match="looks like vdi"):
        kind_of(DiskSpec(base))
    assert kind_of(DiskSpec(base, format="raw")) == "raw"


def test_a_format_that_virtualbox_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'qcow2'") as caught:
        kind_of(DiskSpec(image(tmp_path, "img"), format="qcow2"))
    assert "qemu-img convert" in (caught.value.hint or "")


def test_a_descriptor_of_other_files_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base.vmdk"
    base.write_text("# Disk DescriptorFile\nRW 1 FLAT /etc/shadow 0\n")
    for format in (None, "vmdk"):
        with pytest.raises(ConfigError, match="names other files"):
            kind_of(DiskSpec(base, format=format))


def test_disks_are_copies_and_cds_are_not(tmp_path: Path) -> None:
    names = ("vdi", "iso", "img")
    bases = [DiskSpec(image(tmp_path, suffix)) for suffix in names]
    folder = tmp_path / "new"
    folder.mkdir()
    copy, cd, raw, empty = make_disks(folder, [*bases, DiskSpec(size_bytes=1 << 20)])
    assert copy.path == folder / "disk0.vdi"
    assert copy.path.read_bytes() == CONTENTS["vdi"]
    assert (cd.path, cd.kind) == (bases[1].base, DVD)
    assert (raw.path.name, raw.kind) == ("disk2.vdi", HARD_DISK)
    assert empty.path.name == "disk3.vdi"


def test_a_copy_that_shall_be_larger_is_grown_later(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (copy,) = make_disks(folder, [DiskSpec(image(tmp_path, "vdi"), size_bytes=1 << 30)])
    assert copy.size_bytes == 1 << 30


def test_a_cd_that_is_gone_is_still_known_as_one() -> None:
    assert is_cd(DiskSpec(Path("/gone.iso")))
    assert is_cd(DiskSpec(Path("/gone"), format="iso"))
    assert not is_cd(DiskSpec(Path("/gone.iso"), format="raw"))
    assert not is_cd(DiskSpec(size_bytes=1))
