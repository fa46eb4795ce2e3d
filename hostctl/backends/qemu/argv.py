"""MachineSpec → QEMU's arguments: a pure function, no I/O, held by golden tests.

What the arguments promise: no default devices, no network, no monitor but ours, no child processes,
our thirteen ports and the guest agent's, a console that is always logged, a serial line beside it,
and a node for RAM snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostctl_channels.ports import SERIAL, suffix

from ...state import MachineFiles
from ..accel import BINARY, accel_arguments
from ..interface import MachineSpec
from .moment import Ram

__all__ = ["Launch", "argv", "run_name"]

# No setuid, no exec, no affinity or scheduler games, no obsolete calls: QEMU itself needs none of
# them.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
MAX_PORTS = 31  # the device's own ceiling: hot-plugged ports stay possible
VMSTATE_NODE = "vmstate"
# Boots a second sooner than `pc` under TCG: the guest interprets pc's interrupt table, a loop in
# ACPI byte code, once per PCI device (images/README.md has the numbers).
MACHINE = "q35,sata=off,smbus=off"
RAM_ID = "pc.ram"  # the machine type's default-ram-id


@dataclass(frozen=True, slots=True)
class Launch:
    """What one start adds to the spec."""

    run_id: str
    accel: str
    ports: Sequence[str]  # full names, in the order of their numbers
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    stop_on_reboot: bool = False
    frozen: bool = False
    ram: Ram | None = None  # else it is QEMU's own
    is_incoming: bool = False  # the devices' state is still to come, by the monitor


def argv(spec: MachineSpec, files: MachineFiles, launch: Launch) -> list[str]:
    """Return the whole command line."""
    return [
        BINARY,
        *("-name", run_name(spec.name, launch.run_id)),
        *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none"),
        *("-sandbox", SANDBOX),
        *("-pidfile", str(files.pid)),
        *_machine(spec, launch.ram),
        *accel_arguments(launch.accel, spec.cpus),
        *("-m", str(spec.memory_mib), "-smp", str(spec.cpus)),
        *("-rtc", "base=utc"),
        *(["-no-reboot"] if launch.stop_on_reboot else []),
        *(["-S"] if launch.frozen else []),
        *(["-incoming", "defer"] if launch.is_incoming else []),
        *_monitors(files),
        *_console(files),
        *_serial(files),
        *("-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0"),
        *_ports(files, launch),
        *_vmstate(files),
        *_disks(spec, files),
        *_boot(launch),
        *spec.extra_args,
    ]


def run_name(name: str, run_id: str) -> str:
    """Return the argument by which one run's process is found among all processes."""
    return f"hostctl-{name}-{run_id}"


def disk_node(index: int) -> str:
    """Return the block node name of disk `index`; snapshots name it."""
    return f"disk{index}"


def disk_path(files: MachineFiles, index: int) -> Path:
    """Return the overlay of disk `index`."""
    return files.disks / f"disk{index}.qcow2"


def _machine(spec: MachineSpec, ram: Ram | None) -> list[str]:
    if ram is None:
        return ["-machine", MACHINE]
    # Called as QEMU calls its own: a moment of one can be loaded into the other.
    words = f"memory-backend-file,id={RAM_ID},size={spec.memory_mib}M,mem-path={_escape(ram.path)}"
    share = "on" if ram.is_shared else "off"
    return [
        "-object",
        f"{words},share={share},x-use-canonical-path-for-ramblock-id=off",
        "-machine",
        f"{MACHINE},memory-backend={RAM_ID}",
    ]


def _monitors(files: MachineFiles) -> list[str]:
    # Two, for a QMP socket serves one client at a time: `qmp` belongs to the holder of the
    # machine's lock, `query` to whoever only looks.
    words = []
    for name in ("qmp", "query"):
        words += ["-chardev", _socket(name, files.socket(name))]
        words += ["-mon", f"chardev={name},mode=control"]
    return words


def _console(files: MachineFiles) -> list[str]:
    # Appended to, so that it can be cut while QEMU writes; launch begins a fresh one.
    log = f",logfile={_escape(files.console_log)},logappend=on"
    return [
        "-chardev",
        _socket("console", files.socket("console")) + log,
        "-serial",
        "chardev:console",
    ]


def _serial(files: MachineFiles) -> list[str]:
    # The second -serial is the guest's ttyS1: a way in for an agent or a login of its own.
    return ["-chardev", _socket("serial1", files.socket(SERIAL)), "-serial", "chardev:serial1"]


def _ports(files: MachineFiles, launch: Launch) -> list[str]:
    device = f"virtio-serial-pci,id=vser0,max_ports={MAX_PORTS}"
    if launch.accel == "tcg":
        # The guest's kicks are heeded where they come, in the thread that runs it: to hand them to
        # another costs two switches. 4-9 % less time, 5-15 % less CPU (docs/decisions/0015).
        device += ",ioeventfd=off"
    words = ["-device", device]
    for number, name in enumerate(launch.ports, start=1):  # 0 is the port of a virtio console
        words += ["-chardev", _socket(f"port{number}", files.socket(suffix(name)))]
        port = f"virtserialport,bus=vser0.0,nr={number},chardev=port{number},name={name}"
        words += ["-device", port]
    return words


def _vmstate(files: MachineFiles) -> list[str]:
    # Attached to no device: it only holds RAM, so machines with and without disks snapshot alike.
    return ["-blockdev", _qcow2(VMSTATE_NODE, files.vmstate)]


def _disks(spec: MachineSpec, files: MachineFiles) -> list[str]:
    words = []
    for index in range(len(spec.disks)):
        node = disk_node(index)
        words += ["-blockdev", _qcow2(node, disk_path(files, index))]
        words += ["-device", f"virtio-blk-pci,drive={node},id=dev-{node}"]
    return words


def _boot(launch: Launch) -> list[str]:
    words: list[str] = []
    if launch.kernel is not None:
        words += ["-kernel", str(launch.kernel)]
    if launch.initrd is not None:
        words += ["-initrd", str(launch.initrd)]
    if launch.append:
        words += ["-append", launch.append]
    return words


def _qcow2(node: str, path: Path) -> str:
    # JSON, not key=value: no escaping rules, and a format that is never probed.
    blockdev: Mapping[str, object] = {
        "driver": "qcow2",
        "node-name": node,
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(path)},
    }
    return json.dumps(blockdev)


def _socket(name: str, path: Path) -> str:
    return f"socket,id={name},path={_escape(path)},server=on,wait=off"


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")  # QemuOpts: a doubled comma is a comma
