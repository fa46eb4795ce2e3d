"""What VBoxManage of 7.2 printed, read."""

import pytest

from hostctl.backends.virtualbox import vminfo
from hostctl.backends.virtualbox.seen import Nic, Uart, VmState
from hostctl.errors import BackendError

INFO = r"""name="q\"x"
UUID="11111111-2222-4333-8444-555555555555"
CfgFile="/tmp/q_x/q_x.vbox"
memory=32
VMState="running"
storagecontrollername0="ide"
"ide-0-0"="/tmp/disk0.vdi"
"ide-ImageUUID-0-0"="81d84235-a139-4caa-b16e-5e88f01254e6"
"ide-nonrotational-0-0"="off"
"ide-0-1"="none"
"ide-1-0"="emptydrive"
nic1="none"
nictype2="82540EM"
nic2="nat"
uart1="0x03f8,4"
uartmode1="file,/tmp/c,1.log"
uart2="0x02f8,3"
uartmode2="server,/tmp/s.sock"
uart3="off"
SessionName="headless"
VideoMode="720,400,0"@0,0 1
VRDEClients==0
 rec_screen0
"""
SNAPSHOTS = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.20-linux">
  <Machine uuid="{1}" name="q" currentSnapshot="{b}">
    <MediaRegistry><HardDisks>
      <HardDisk uuid="{d0}" location="disk0.vdi">
        <HardDisk uuid="{d1}" location="S/{d1}.vdi"/>
      </HardDisk>
    </HardDisks></MediaRegistry>
    <Snapshot uuid="{a}" name="a b" timeStamp="2026-11-25T09:32:16Z" stateFile="S/a.sav">
      <Description>x
y</Description>
      <Snapshots><Snapshot uuid="{b}" name="off" timeStamp="2026-11-25T09:32:17Z"/></Snapshots>
    </Snapshot>
  </Machine>
</VirtualBox>"""


def test_fields_are_unquoted_and_noise_is_skipped() -> None:
    found = vminfo.fields(INFO)
    assert found["name"] == 'q"x'
    assert found["memory"] == "32"
    assert found["ide-0-0"] == "/tmp/disk0.vdi"


def test_a_value_may_have_several_lines() -> None:
    assert vminfo.fields('D="x\ny \\"z\\"\n"\nnext="1"\n') == {"D": 'x\ny "z"\n', "next": "1"}
    assert vminfo.fields('D="never closed\n')["D"].startswith("never closed")


def test_lines_adapters_and_media_are_found() -> None:
    found = vminfo.fields(INFO)
    assert vminfo.nics(found) == (Nic(1, "82540EM", "NAT"),)
    assert vminfo.uarts(found) == (Uart(0, "file", "/tmp/c,1.log"), Uart(1, "pipe", "/tmp/s.sock"))
    assert list(vminfo.media(found)) == [("81d84235-a139-4caa-b16e-5e88f01254e6", "/tmp/disk0.vdi")]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("poweroff", VmState.POWERED_OFF),
        ("aborted-saved", VmState.ABORTED_SAVED),
        ("gurumeditation", VmState.STUCK),
        ("running", VmState.RUNNING),
        ("deletingsnapshotlivepaused", VmState.DELETING_SNAPSHOT_PAUSED),
        ("restoringsnapshot", VmState.RESTORING_SNAPSHOT),
    ],
)
def test_states_are_those_of_the_api(word: str, state: VmState) -> None:
    assert vminfo.state_of({"VMState": word}) is state


def test_an_unknown_state_is_told_not_guessed() -> None:
    with pytest.raises(BackendError, match="'quantum'"):
        vminfo.state_of({"VMState": "quantum"})


def test_snapshots_are_in_the_settings_file() -> None:
    first, second = vminfo.snapshots(SNAPSHOTS)
    assert (first.id, first.tag, first.note, first.has_ram) == ("a", "a b", "x\ny", True)
    assert (second.tag, second.has_ram, second.is_current) == ("off", False, True)
    assert second.created_s - first.created_s == 1


def test_a_difference_leads_to_its_base() -> None:
    assert vminfo.base_of(SNAPSHOTS, "d1") == "disk0.vdi"
    assert vminfo.base_of(SNAPSHOTS, "d0") is None
    assert vminfo.base_of(SNAPSHOTS, "unknown") is None


def test_complaints_have_a_code_and_a_text() -> None:
    said = (
        "0%...10%...\n"
        "VBoxManage: error: Could not find a registered machine named 'nope'\n"
        "VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component X\n"
        'VBoxManage: error: Context: "FindMachine(...)" at line 907 of file VBoxManageMisc.cpp\n'
    )
    assert vminfo.error_code(said) == 0x80BB0001
    assert vminfo.error_text(said) == "Could not find a registered machine named 'nope'"
    assert (vminfo.error_code("what?"), vminfo.error_text("what?")) == (0, "what?")
