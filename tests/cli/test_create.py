"""What the words of `create` mean."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import hostctl_images
from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.cli import create, main
from hostctl.cli.exits import Exit, UsageError
from hostctl_images import Image

from .fakes import FakeController


def spec(line: str) -> MachineSpec:
    return create.spec_of(main.parse(["create", *line.split()]))


def test_the_default_is_a_small_machine_of_the_tiny_image() -> None:
    assert spec("web") == MachineSpec("web", image="tiny", memory_mib=256, cpus=1)


def test_a_kernel_takes_the_place_of_an_image() -> None:
    made = spec("web --kernel /k --initrd /i --append quiet --memory 1G --cpus 2 --accel tcg")
    assert made == MachineSpec(
        "web",
        kernel=Path("/k"),
        initrd=Path("/i"),
        append="quiet",
        memory_mib=1024,
        cpus=2,
        accel="tcg",
    )


def test_a_disk_alone_boots_itself() -> None:
    assert spec("web --disk /d.qcow2").image is None
    assert spec("web --disk /d.qcow2 --image tiny").image == "tiny"


def test_an_empty_disk_boots_nothing_so_the_image_does() -> None:
    assert spec("web --disk size=64M").image == "tiny"
    assert spec("web --disk size=64M --disk /d.qcow2").image is None
    assert spec("web --disk size=64M --image none --qemu-arg=-cdrom").image is None


def test_words_for_qemu_pass_in_order() -> None:
    assert spec("web --qemu-arg=-name --qemu-arg=other").extra_args == ("-name", "other")


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("/d.qcow2", DiskSpec(Path("/d.qcow2"))),
        ("/d.raw,format=raw,size=2G", DiskSpec(Path("/d.raw"), 2**31, "raw")),
        ("size=64M", DiskSpec(None, 2**26)),
        ("/odd=name", DiskSpec(Path("/odd=name"))),
    ],
)
def test_disks(text: str, disk: DiskSpec) -> None:
    assert create.parse_disk(text) == disk


@pytest.mark.parametrize("text", ["/d,colour=red", "/d,size=big", "format=raw"])
def test_a_disk_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="create: --disk"):
        create.parse_disk(text)


@pytest.mark.parametrize("line", ["web --image tiny --kernel /k", "web --initrd /i"])
def test_contradictions_are_refused(line: str) -> None:
    with pytest.raises(UsageError, match="image"):
        spec(line)


@pytest.mark.usefixtures("built_tiny")
def test_create_and_start(controller: FakeController, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["create", "new", "--start", "--timeout", "9", "--json"]) == Exit.OK
    assert controller.machine("new").calls == [("start", {"timeout_s": 9.0})]
    assert json.loads(capsys.readouterr().out) == {
        "name": "new",
        "image": "tiny",
        "state": "running",
        "tags": [],
    }


@pytest.mark.usefixtures("controller")
def test_an_image_that_has_a_recipe_is_built_on_the_way(
    built_tiny: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def build(name: str, *, progress: Callable[[str], None]) -> Image:
        asked.append(name)
        return built_tiny

    monkeypatch.setattr(hostctl_images, "build", build)
    assert main.main(["create", "one"]) == Exit.OK
    assert asked == []
    assert main.main(["create", "two", "--image", "big"]) == Exit.OK
    assert asked == ["big"]
