"""Places, targets, states, faults, folders: what is remembered, and what is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from hostctl.backends.virtualbox.bridge.wire import Failure
from hostctl.backends.virtualbox.faults import (
    BridgeDied,
    NotFound,
    VirtualBoxError,
    translate,
)
from hostctl.backends.virtualbox.folder import Folders
from hostctl.backends.virtualbox.place import Place
from hostctl.backends.virtualbox.seen import VmState, state_named
from hostctl.backends.virtualbox.target import Target, way_of
from hostctl.errors import BackendError, ConfigError, DeadlineExceeded, ToolMissing, Unsupported
from hostctl.lifecycle import MachineState
from hostctl.state import Home, write_json


def test_a_place_is_told_by_the_environment_or_the_command_line() -> None:
    environ = {"HOSTCTL_VBOX_PREFIX": "sudo -u 'v b'", "HOSTCTL_VBOX_PYTHON": "/opt/python"}
    place = Place.default(None, environ)
    assert place.prefix == ("sudo", "-u", "v b")
    assert place.pythons == ("/opt/python",)
    assert Place.default("env A=1", environ).prefix == ("env", "A=1")
    assert Place.default(None, {}).prefix == ()
    assert len(Place.default(None, {}).pythons) > 1


def test_targets_survive_json_and_never_collide() -> None:
    target = Target.new("web", "env A=1")
    assert Target.from_json(target.to_json()) == target
    assert target.name.startswith("hostctl-web-")
    assert Target.new("web", None).id != target.id


def test_the_way_to_ask_is_one_of_three() -> None:
    assert way_of({}) == "auto"
    assert way_of({"HOSTCTL_VBOX_API": "manage"}) == "manage"
    with pytest.raises(ConfigError, match="'telnet'"):
        way_of({"HOSTCTL_VBOX_API": "telnet"})


def test_states_become_ours() -> None:
    assert state_named("Running").as_ours is MachineState.RUNNING
    assert state_named("Stuck").as_ours is MachineState.RUNNING
    assert state_named("DeletingSnapshotPaused").as_ours is MachineState.PAUSED
    assert state_named("AbortedSaved").as_ours is MachineState.CRASHED
    assert {state.as_ours for state in (VmState.SAVED, VmState.POWERED_OFF)} == {
        MachineState.STOPPED
    }
    with pytest.raises(BackendError, match="'Quantum'"):
        state_named("Quantum")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(1, "vbox", "Not there.", 0x80BB0001), NotFound),
        (Failure(1, "vbox", "Busy", 0x80BB0007), VirtualBoxError),
        (Failure(1, "vbox", "Never", 0x80BB0009), Unsupported),
        (Failure(1, "missing", "vboxapi: No module"), ToolMissing),
        (Failure(1, "unknown", "VirtualBox 8.0"), Unsupported),
        (Failure(1, "unsupported", "no"), Unsupported),
        (Failure(1, "late", "still locked"), DeadlineExceeded),
        (Failure(1, "died", "signal 11"), BridgeDied),
        (Failure(1, "bug", "Traceback"), BackendError),
    ],
)
def test_every_failure_has_its_error(failure: Failure, kind: type[BackendError]) -> None:
    error = translate(failure, "start")
    assert type(error) is kind
    assert failure.kind in ("missing",) or failure.text.split()[0].lower() in str(error).lower()


def test_only_some_refusals_are_worth_another_try() -> None:
    busy = translate(Failure(1, "vbox", "x", 0x80BB0007), "x")
    other = translate(Failure(1, "vbox", "x", 0x80BB0004), "x")
    assert isinstance(busy, VirtualBoxError)
    assert isinstance(other, VirtualBoxError)
    assert busy.is_busy
    assert not other.is_busy


def test_a_folder_without_a_machine_is_a_leftover(tmp_path: Path) -> None:
    home = Home(tmp_path / "s", tmp_path / "r").open()
    files = home.files("web")
    folders, target = Folders(files), Target.new("web", None)
    folders.note("web", target)
    assert list(folders.leftovers(target.place)) == [target]
    assert list(folders.leftovers(replace(target.place, prefix=("sudo",)))) == []
    files.directory.mkdir()
    write_json(files.spec, {"options": target.to_json()})
    assert list(folders.leftovers(target.place)) == []
    write_json(files.spec, {"options": Target.new("web", None).to_json()})  # made anew
    assert list(folders.leftovers(target.place)) == [target]
    folders.strike(target)
    assert list(folders.leftovers(target.place)) == []


def test_a_folder_that_cannot_be_read_is_nobodys_to_judge(tmp_path: Path) -> None:
    home = Home(tmp_path / "s", tmp_path / "r").open()
    folders = Folders(home.files("web"))
    for number, text in enumerate(("{", "[]", '{"machine": "x"}')):
        (folders.root / str(number)).mkdir(parents=True)
        (folders.root / str(number) / "hostctl.json").write_text(text)
    assert list(folders.leftovers(Place())) == []
