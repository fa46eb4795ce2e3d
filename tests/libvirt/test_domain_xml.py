"""The definitions of our machines, word for word; and what is read from anybody's.

Write them anew with HOSTCTL_GOLDEN=write.
"""

import os
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec, Nic
from hostctl.backends.libvirt.domain_xml import Boot, channel_xml, domain_xml, view
from hostctl.backends.libvirt.target import Target
from hostctl.backends.report import PortReport
from hostctl_channels.ports import PORTS

GOLDEN = Path(__file__).with_name("golden")
TARGET = Target("qemu:///system", "hostctl-web-0a1b2c3d", "0a1b2c3d-0000-4000-8000-000000000000")
LOG = "/pool/hostctl-web-0a1b2c3d.console.log"
KERNEL = MachineSpec("web", kernel=Path("/k"), append='console=ttyS0 a="<&>"', memory_mib=512)
DISKS = MachineSpec(
    "web",
    disks=(DiskSpec(Path("/a.qcow2")), DiskSpec(size_bytes=1)),
    cpus=2,
    extra_args=("-device", "x,y='<'"),
)
CASES = {
    "kernel-tcg": (KERNEL, Boot("tcg", (), LOG, "/pool/k", "/pool/i", stop_on_reboot=True)),
    "disks-kvm": (DISKS, Boot("kvm", ("/pool/a", "/pool/b"), LOG)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_definition(case: str) -> None:
    spec, boot = CASES[case]
    text = domain_xml(spec, TARGET, boot)
    path = GOLDEN / f"{case}.xml"
    if os.environ.get("HOSTCTL_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
    assert "<interface" not in text


def test_ours_is_read_as_it_was_written() -> None:
    shown = view(domain_xml(*_case("disks-kvm")))
    assert (shown.cpus, shown.accel, shown.nics) == (2, "kvm", ())
    assert [port.name for port in shown.ports][: len(PORTS)] == list(PORTS)
    assert shown.disks == (("vda", "/pool/a"), ("vdb", "/pool/b"))


def test_a_live_one_shows_networks_and_open_ports() -> None:
    shown = view(
        """<domain type='kvm'><memory unit='KiB'>1048576</memory><vcpu>4</vcpu><devices>
        <interface type='network'><mac address='52:54:00:00:00:01'/><model type='virtio'/>
        </interface>
        <channel type='unix'><target type='virtio' name='a' state='connected'/></channel>
        <channel type='unix'><target type='virtio' name='b' state='disconnected'/></channel>
        <channel type='spicevmc'><target type='virtio' name='c'/></channel>
        <disk type='file' device='cdrom'><source file='/cd'/><target dev='sda'/></disk>
        <serial type='pty'><alias name='serial0'/></serial></devices></domain>"""
    )
    assert (shown.memory_mib, shown.cpus) == (1024, 4)
    assert shown.nics == (Nic("virtio", "mac 52:54:00:00:00:01"),)
    assert shown.ports == (PortReport("a", True), PortReport("b", False))
    assert (shown.disks, shown.serials) == ((), ("serial0",))


def test_a_port_to_plug() -> None:
    wanted = '<channel type="unix"><target type="virtio" name="a&lt;" /></channel>'
    assert channel_xml("a<") == wanted


def _case(name: str) -> tuple[MachineSpec, Target, Boot]:
    spec, boot = CASES[name]
    return spec, TARGET, boot
