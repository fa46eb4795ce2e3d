"""VBoxManage's driver, against a program that says what the real one was seen to say."""

from pathlib import Path

import pytest

from hostctl.backends.virtualbox.faults import VirtualBoxError
from hostctl.backends.virtualbox.manage import ManageDriver
from hostctl.backends.virtualbox.place import Place
from hostctl.backends.virtualbox.seen import VmState

# showvminfo (7.2) of a machine whose process has just been killed, then of one that is known to be.
DYING = """\
VBoxManage: error: Failed to get a console object from the direct session (NS_ERROR_CALL_FAILED)
VBoxManage: error: Details: code VBOX_E_VM_ERROR (0x80bb0003), component MachineWrap
"""
OTHER = """\
VBoxManage: error: Could not launch the process
VBoxManage: error: Details: code VBOX_E_VM_ERROR (0x80bb0003), component MachineWrap
"""


def driver_that(folder: Path, complaint: str) -> ManageDriver:
    """Return the driver of a VBoxManage that complains, once, then tells of a crashed machine."""
    program = folder / "VBoxManage"
    program.write_text(
        f"#!/bin/sh\n[ -e {folder}/again ] || {{ : >{folder}/again; cat >&2 <<'END'\n"
        f"{complaint}END\nexit 1; }}\nprintf '%s\\n' 'UUID=\"x\"' 'VMState=\"aborted\"'\n"
    )
    program.chmod(0o755)
    return ManageDriver(Place(manage=str(program)))


async def test_a_look_at_a_machine_that_dies_waits_until_its_death_is_known(tmp_path: Path) -> None:
    assert (await driver_that(tmp_path, DYING).look("x")).state is VmState.ABORTED


async def test_any_other_failure_of_a_machine_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(VirtualBoxError, match="not launch"):
        await driver_that(tmp_path, OTHER).look("x")
