from pathlib import Path

import pytest

from hostctl import doctor
from hostctl.backends import accel
from hostctl.doctor import Finding, Status, examine
from hostctl.errors import BackendError
from hostctl.state import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    async def trial(*_: object) -> bool:
        return False

    monkeypatch.setattr(accel, "trial", trial)
    monkeypatch.setattr(accel, "KVM", tmp_path / "kvm")
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(tmp_path / "cache"))
    return Home(tmp_path / "s", tmp_path / "r")


async def look(home: Home) -> dict[str, Finding]:
    return {finding.part: finding for finding in await examine(home)}


async def test_every_problem_comes_with_its_fix(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = await look(home)
    assert found["qemu"].status is found["qemu-img"].status is Status.FAIL
    assert found["qemu"].fix == "apt-get install qemu-system-x86"
    assert found["image"].status is Status.FAIL
    assert all(f.fix for f in found.values() if f.status is not Status.OK)


async def test_a_missing_accelerator_does_not_keep_the_main_job_from_running(home: Home) -> None:
    finding = (await look(home))["acceleration"]
    assert (finding.status, finding.required) == (Status.WARN, False)
    assert "does not exist" in finding.detail


async def test_an_optional_hypervisor_that_is_broken_does_not_either(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Home) -> Finding:
        raise BackendError("it died", hint="start it again")

    monkeypatch.setattr(doctor, "_virtualbox", broken)
    finding = (await look(home))["virtualbox"]
    assert (finding.status, finding.required) == (Status.FAIL, False)
    assert finding.fix == "start it again"


async def test_an_accelerator_that_hangs_is_told_from_one_that_is_not_there(home: Home) -> None:
    accel.KVM.touch()
    finding = (await look(home))["acceleration"]
    assert "said nothing" in finding.detail


async def test_a_short_of_room_for_socket_names_is_told(home: Home, tmp_path: Path) -> None:
    short = Home(home.state, Path("/r"))
    assert (await doctor._socket_paths(short)).status is Status.OK
    long = Home(home.state, Path("/" + "r" * 60))
    assert (await doctor._socket_paths(long)).detail == "machine names may have 32 characters"
    longest = Home(home.state, Path("/" + "r" * 100))
    assert (await doctor._socket_paths(longest)).status is Status.FAIL


async def test_a_home_of_somebody_else_is_a_finding_not_an_exception(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "r").symlink_to(tmp_path)
    finding = (await look(home))["directories"]
    assert finding.status is Status.FAIL
    assert finding.fix
