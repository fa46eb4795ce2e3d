"""What a hypervisor tells of a machine, as values. `interface` offers the same names, lazily."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["BackendReport", "DiskReport", "Nic", "PortReport", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved moment of a machine. Its size is that of RAM and devices, without the disks.

    None is a size that the hypervisor does not tell.
    """

    tag: str
    created: datetime
    vm_state_bytes: int | None
    has_ram: bool = True
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Nic:
    """A network device, as the hypervisor shows it: `kind` is its device type or PCI class."""

    kind: str
    address: str


@dataclass(frozen=True, slots=True)
class PortReport:
    """A port of a machine; `is_open`: a program in the guest has opened it, None: not known."""

    name: str
    is_open: bool | None


@dataclass(frozen=True, slots=True)
class DiskReport:
    """A disk of a machine: the file that is written, and the base that is not."""

    path: Path
    base: Path | None
    virtual_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What the hypervisor says about a machine; `None` is what it could not say."""

    pid: int | None = None
    uptime_s: float | None = None
    accel: str | None = None
    accel_reason: str | None = None
    run_state: str | None = None
    nics: tuple[Nic, ...] | None = None
    disks: tuple[DiskReport, ...] = ()
    hypervisor: str = "qemu"
    ports: tuple[PortReport, ...] | None = None
    disk_read_bytes: int | None = None  # since its start, by the hypervisor's own count
    disk_written_bytes: int | None = None
