import contextlib
import os
import tempfile
import time
from pathlib import Path

import pytest

from hostctl.backends import accel
from hostctl.backends.accel import accel_arguments
from hostctl.backends.interface import MachineSpec
from hostctl.state import Home, MachineFiles, read_json

KERNEL = Path("/boot/vmlinuz")


@pytest.fixture
def files(tmp_path: Path) -> MachineFiles:
    files = Home(tmp_path / "s", tmp_path / "r").open().files("web")
    files.directory.mkdir()
    return files


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Pretend that /dev/kvm is there; the list says which trials were made."""
    made: list[str] = []

    async def trial(kind: str, *_: object) -> bool:
        made.append(kind)
        return bool(os.environ.get("WORKS"))

    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accel, "KVM", tmp_path / "kvm")
    monkeypatch.setattr(accel, "trial", trial)
    return made


def spec(kind: str) -> MachineSpec:
    return MachineSpec("web", kernel=KERNEL, accel=kind)


def is_named_by_a_process(path: Path) -> bool:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended since
            if str(path).encode() in command.read_bytes():
                return True
    return False


@pytest.mark.parametrize("kind", ["kvm", "tcg"])
async def test_what_was_asked_for_is_not_tried(
    files: MachineFiles, trials: list[str], kind: str
) -> None:
    assert await accel.choose(spec(kind), files, None) == accel.Choice(kind, "asked for")
    assert trials == []


async def test_no_device_means_emulation_with_the_reason(
    files: MachineFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "KVM", Path("/dev/no-kvm"))
    choice = await accel.choose(spec("auto"), files, None)
    assert choice == accel.Choice("tcg", "/dev/no-kvm does not exist")


@pytest.mark.needs("qemu")
@pytest.mark.parametrize("works", [True, False])
async def test_a_trial_is_made_once(
    files: MachineFiles, trials: list[str], monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    monkeypatch.setenv("WORKS", "yes" if works else "")
    told: list[str] = []
    for _ in range(2):
        choice = await accel.choose(spec("auto"), files, told.append)
        assert choice.accel == ("kvm" if works else "tcg")
        assert "trial boot" in choice.reason
    assert trials == ["kvm"]
    assert len(told) == 1


@pytest.mark.needs("qemu")
async def test_a_new_device_is_tried_again(files: MachineFiles, trials: list[str]) -> None:
    await accel.choose(spec("auto"), files, None)
    accel.KVM.unlink()
    accel.KVM.touch()
    await accel.choose(spec("auto"), files, None)
    assert trials == ["kvm", "kvm"]
    verdict = read_json(files.directory.parent.parent / "accel.json")
    assert verdict is not None
    assert verdict["works"] is False


def test_emulation_shares_a_thread_from_two_cpus_on() -> None:
    assert accel_arguments("tcg", 1) == ["-accel", "tcg,thread=multi"]
    assert accel_arguments("tcg", 2) == ["-accel", "tcg,thread=single"]
    assert "host" in accel_arguments("kvm", 2)


@pytest.mark.vm
async def test_a_boot_sector_speaks_under_emulation() -> None:
    assert await accel.trial("tcg", None, None, "")


@pytest.mark.vm
async def test_a_guest_that_says_nothing_fails_in_time_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accel, "BOOT_SECTOR", b"\xf4".ljust(510, b"\0") + b"\x55\xaa")  # hlt
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun = time.monotonic()
    assert not await accel.trial("tcg", None, None, "", timeout_s=1)
    assert time.monotonic() - begun < 10
    assert not is_named_by_a_process(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.vm
async def test_an_accelerator_that_qemu_refuses_fails_at_once() -> None:
    begun = time.monotonic()
    assert not await accel.trial("nonesuch", None, None, "")
    assert time.monotonic() - begun < accel.TRIAL_S
