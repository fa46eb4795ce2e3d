"""MachineSpec → domain XML, a pure function held by golden tests; and live XML → what it shows.

What the XML promises: no `<interface>`, nothing that libvirt would add by itself and we can refuse,
all ports of the agent, the QEMU guest agent's, two serial lines, and a console that is always
logged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from hostctl_channels.ports import PORTS

from ..interface import GUEST_AGENT, MachineSpec
from ..report import Nic, PortReport
from .target import Target

__all__ = ["Boot", "DomainView", "channel_xml", "domain_xml", "view"]

QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"
OUR_NS = "urn:hostctl:machine"
# As QEMU's own back end has it: under emulation it boots a second sooner than pc.
MACHINE = "q35"
MAX_PORTS = 31  # the device's own ceiling: hot-plugged ports stay possible
SERIALS = 2  # the console, and one for a channel

ET.register_namespace("qemu", QEMU_NS)
ET.register_namespace("hostctl", OUR_NS)


@dataclass(frozen=True, slots=True)
class Boot:
    """What one start adds to the spec. Paths are those of the hypervisor's host."""

    accel: str
    disks: Sequence[str]
    console_log: str
    kernel: str | None = None
    initrd: str | None = None
    stop_on_reboot: bool = False


@dataclass(frozen=True, slots=True)
class DomainView:
    """What a domain's XML shows."""

    memory_mib: int
    cpus: int
    accel: str
    nics: tuple[Nic, ...]
    ports: tuple[PortReport, ...]
    disks: tuple[tuple[str, str], ...]  # target, source
    serials: tuple[str, ...]  # aliases, where it lives; else ""


def domain_xml(spec: MachineSpec, target: Target, boot: Boot) -> str:
    """Return the definition of a machine of ours."""
    root = ET.Element("domain", type="kvm" if boot.accel == "kvm" else "qemu")
    _add(root, "name", target.domain)
    _add(root, "uuid", target.uuid)
    ET.SubElement(_add(root, "metadata"), f"{{{OUR_NS}}}machine", name=spec.name)
    _add(root, "memory", str(spec.memory_mib), unit="MiB")
    _add(root, "vcpu", str(spec.cpus))
    _add_boot(root, spec, boot)
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if boot.accel == "kvm":
        _add(root, "cpu", mode="host-passthrough")
    _add(root, "clock", offset="utc")
    _add(root, "on_poweroff", "destroy")
    _add(root, "on_reboot", "destroy" if boot.stop_on_reboot else "restart")
    _add(root, "on_crash", "destroy")
    _add_devices(root, boot)
    if spec.extra_args:
        line = ET.SubElement(root, f"{{{QEMU_NS}}}commandline")
        for word in spec.extra_args:
            ET.SubElement(line, f"{{{QEMU_NS}}}arg", value=word)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def channel_xml(name: str) -> str:
    """Return a port to be plugged."""
    channel = ET.Element("channel", type="unix")
    _add(channel, "target", type="virtio", name=name)
    return ET.tostring(channel, encoding="unicode")


def channels_of(xml: str, names: Collection[str]) -> list[str]:
    """Return a domain's channels of these names, each as XML of its own."""
    channels = ET.fromstring(xml).iterfind("devices/channel")
    return [
        ET.tostring(channel, encoding="unicode")
        for channel in channels
        if (target := channel.find("target")) is not None and target.get("name") in names
    ]


def view(xml: str) -> DomainView:
    """Read what matters to us of any domain's XML."""
    root = ET.fromstring(xml)
    devices = root.find("devices")
    assert devices is not None, "libvirt's own XML always has devices"
    memory = root.find("memory")
    return DomainView(
        memory_mib=0 if memory is None else int(memory.text or 0) // 1024,  # libvirt shows KiB
        cpus=int(root.findtext("vcpu") or 1),
        accel="tcg" if root.get("type") == "qemu" else str(root.get("type")),
        nics=tuple(_nics(devices)),
        ports=tuple(_ports(devices)),
        disks=tuple(_disks(devices)),
        serials=tuple(_alias(serial) for serial in devices.findall("serial")),
    )


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_boot(root: ET.Element, spec: MachineSpec, boot: Boot) -> None:
    os = _add(root, "os")
    _add(os, "type", "hvm", arch="x86_64", machine=MACHINE)
    if boot.kernel is None:
        _add(os, "boot", dev="hd")
        return
    _add(os, "kernel", boot.kernel)
    if boot.initrd is not None:
        _add(os, "initrd", boot.initrd)
    if spec.append:
        _add(os, "cmdline", spec.append)


def _add_devices(root: ET.Element, boot: Boot) -> None:
    devices = _add(root, "devices")
    for index, path in enumerate(boot.disks):
        disk = _add(devices, "disk", type="file", device="disk")
        _add(disk, "driver", name="qemu", type="qcow2", discard="unmap")
        _add(disk, "source", file=path)
        _add(disk, "target", dev=f"vd{chr(ord('a') + index)}", bus="virtio")
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "controller", type="virtio-serial", index="0", ports=str(MAX_PORTS))
    for name in (*PORTS, GUEST_AGENT):
        channel = _add(devices, "channel", type="unix")
        _add(channel, "target", type="virtio", name=name)
    for number in range(SERIALS):
        serial = _add(devices, "serial", type="pty")
        if number == 0:
            _add(serial, "log", file=boot.console_log, append="on")
        _add(serial, "target", port=str(number))
    _add(devices, "memballoon", model="none")
    _add(_add(devices, "rng", model="virtio"), "backend", model="builtin")


def _nics(devices: ET.Element) -> Iterator[Nic]:
    for nic in devices.findall("interface"):
        model = nic.find("model")
        kind = str(nic.get("type")) if model is None else str(model.get("type"))
        mac = nic.find("mac")
        yield Nic(kind, "unknown" if mac is None else f"mac {mac.get('address')}")


def _ports(devices: ET.Element) -> Iterator[PortReport]:
    for channel in devices.findall("channel"):
        target = channel.find("target")
        if target is not None and target.get("type") == "virtio" and channel.get("type") == "unix":
            state = target.get("state")
            is_open = None if state is None else state == "connected"
            yield PortReport(target.get("name") or "", is_open)


def _disks(devices: ET.Element) -> Iterator[tuple[str, str]]:
    for disk in devices.findall("disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None and disk.get("device", "disk") == "disk":
            path = source.get("file") or source.get("dev") or source.get("name") or ""
            yield target.get("dev") or "", path


def _alias(device: ET.Element) -> str:
    alias = device.find("alias")
    return "" if alias is None else alias.get("name") or ""
