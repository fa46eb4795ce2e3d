import json
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec, check_name, check_tag
from hostctl.backends.registry import open_backend
from hostctl.errors import ConfigError
from hostctl.state import Home

KERNEL = Path("/boot/vmlinuz")


@pytest.mark.parametrize("name", ["a", "1.2.3", "web-01_x", "n" * 63])
def test_good_names(name: str) -> None:
    assert check_name(name) == check_tag(name) == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "ä", "a\n", "n" * 64, "a,b"])
def test_bad_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert caught.value.hint is not None
    assert "63" in caught.value.hint


def test_a_spec_survives_json() -> None:
    spec = MachineSpec(
        name="web",
        image="tiny",
        kernel=KERNEL,
        initrd=Path("/boot/initrd"),
        append="quiet",
        memory_mib=512,
        cpus=2,
        disks=(DiskSpec(Path("/d.qcow2"), None, "qcow2"), DiskSpec(size_bytes=1 << 30)),
        accel="tcg",
        extra_args=("-device", "virtio-balloon"),
    )
    assert MachineSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accel": "magic"}, "unknown"),
        ({"memory_mib": 1}, "out of range"),
        ({"cpus": 0}, "out of range"),
        ({"kernel": None}, "to boot from"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        MachineSpec(**{"name": "web", "kernel": KERNEL, **change})  # type: ignore[arg-type]


def test_a_disk_needs_a_base_or_a_size() -> None:
    with pytest.raises(ConfigError):
        DiskSpec()
    with pytest.raises(ConfigError):
        DiskSpec(size_bytes=0)


def test_an_unknown_back_end_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path)
    spec = MachineSpec("web", kernel=KERNEL)
    with pytest.raises(ConfigError, match="'xen' is unknown"):
        open_backend("xen", spec, home.files("web"))
