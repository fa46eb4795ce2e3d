"""pyvbox fits every VirtualBox that we know: proved on what their type libraries say."""

from collections.abc import Iterator
from typing import Any

import pytest
from virtualbox import library, library_base

from hostctl.backends.virtualbox.bridge import compat
from hostctl.backends.virtualbox.bridge.serve import Fault
from hostctl.backends.virtualbox.seen import VmState

from .facts import VERSIONS, Facts


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def renumbered(version: str) -> Iterator[dict[str, Any]]:
    """Renumber pyvbox for a version; afterwards it is as it came, made for 6.1."""
    yield compat.renumber(library, library_base.Enum, Facts.of(version).constants)
    compat.renumber(library, library_base.Enum, Facts.of("6.1").constants)


@pytest.mark.usefixtures("renumbered")
def test_every_name_has_the_number_of_that_version(version: str) -> None:
    for enumeration, members in Facts.of(version).enums.items():
        kind = getattr(library, enumeration, None)
        for label, value in members.items() if kind else ():
            assert int(getattr(kind, library_base.pythonic_name(label))) == value, (
                f"{enumeration}.{label}"
            )


@pytest.mark.usefixtures("renumbered")
def test_a_number_is_shown_by_its_own_name_not_an_alias(version: str) -> None:
    members = Facts.of(version).enums["MachineState"]
    assert str(library.MachineState(members["Running"])) == "Running"
    assert str(library.MachineState(members["Paused"])) == "Paused"


@pytest.mark.usefixtures("renumbered")
def test_shared_instances_keep_their_identity() -> None:
    running = library.MachineState.running
    compat.renumber(library, library_base.Enum, Facts.of("7.2").constants)
    assert library.MachineState.running is running
    assert int(running) == 6


def test_what_moved_is_told(version: str, renumbered: dict[str, Any]) -> None:
    assert ("MachineState" in renumbered) == (version != "6.1")
    if version != "6.1":
        assert renumbered["MachineState"]["moved"]["Running"] == [5, 6]


def test_every_state_of_every_version_has_a_word_of_ours(version: str) -> None:
    aliases = {"Null", "FirstOnline", "LastOnline", "FirstTransient", "LastTransient"}
    states = set(Facts.of(version).enums["MachineState"]) - aliases
    assert states <= {state.value for state in VmState}


def test_machines_are_created_with_as_many_arguments_as_it_takes(version: str) -> None:
    facts = Facts.of(version)
    inputs, x86 = facts.inputs["IVirtualBox.createMachine"], facts.constants("PlatformArchitecture")
    words = ("/x/x.vbox", "x", "Linux26_64", "UUID=1")
    arguments = compat.create_machine_arguments(inputs, x86.get("x86"), *words)
    assert len(arguments) == inputs
    assert arguments[:2] == ["/x/x.vbox", "x"]
    assert (1 in arguments) == (version in ("7.1", "7.2"))


def test_processes_too(version: str) -> None:
    inputs = Facts.of(version).inputs["IGuestSession.processCreate"]
    words = ("/bin/true", ["true"], "", ["A=1"], [3], 0)
    assert len(compat.process_create_arguments(inputs, *words)) == inputs


def test_a_folder_for_a_process_is_refused_where_it_cannot_be_told() -> None:
    with pytest.raises(Fault) as caught:
        compat.process_create_arguments(5, "/bin/true", ["true"], "/tmp", [], [], 0)
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(("inputs", "x86"), [(10, 1), (9, None), (4, 1)])
def test_an_unknown_signature_is_one_clear_line(inputs: int, x86: int | None) -> None:
    with pytest.raises(Fault, match=f"takes {inputs} arguments") as caught:
        compat.create_machine_arguments(inputs, x86, "", "", "", "")
    assert caught.value.kind == "unknown"


def test_an_unknown_virtualbox_is_one_clear_line() -> None:
    compat.check_known("7.2.22_Debian")
    with pytest.raises(Fault, match=r"VirtualBox 8\.0\.1 is not known here, only 6\.1, ") as caught:
        compat.check_known("8.0.1")
    assert caught.value.kind == "unknown"


class Thing:
    """A COM object with some attributes."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


def test_settings_are_found_where_this_version_has_them() -> None:
    old, new = Thing(RTCUseUTC=False), Thing(platform=Thing(RTCUseUTC=False))
    for machine in (old, new):
        assert compat.settle(machine, True, "platform.RTCUseUTC", "RTCUseUTC")
        assert compat.first(machine, "platform.RTCUseUTC", "RTCUseUTC") is True
    assert not compat.settle(Thing(), True, "platform.RTCUseUTC", "RTCUseUTC")
    assert compat.first(Thing(), "platform.RTCUseUTC") is None


def test_errors_of_both_bindings_are_explained() -> None:
    class Xpcom(Exception):
        errno = -2135228409  # 0x80bb0007, signed
        msg = "busy"

    fault = compat.explain(Xpcom())
    assert fault is not None
    assert (fault.kind, fault.code, str(fault)) == ("vbox", 0x80BB0007, "busy")
    assert compat.explain(FileNotFoundError(2, "no")) is None
    assert compat.explain(ValueError("a bug")) is None
