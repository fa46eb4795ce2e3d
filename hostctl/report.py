"""What can be said about a machine at one moment, from all sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .backends.interface import MachineSpec
from .backends.report import BackendReport, DiskReport, Nic, PortReport, Snapshot
from .lifecycle import MachineState

__all__ = ["MachineReport"]


@dataclass(frozen=True, slots=True)
class MachineReport:
    """All that can be said about a machine. None is what could not be found out now."""

    name: str
    state: MachineState
    pid: int | None
    uptime_s: float | None
    accel: str | None
    accel_reason: str | None
    run_state: str | None  # the hypervisor's own word
    image: str | None
    memory_mib: int
    cpus: int
    hypervisor: str
    disks: tuple[DiskReport, ...]
    ports: tuple[PortReport, ...] | None
    nics: tuple[Nic, ...] | None  # what the hypervisor shows; () is the proof that there is none
    guest_nics: tuple[str, ...] | None  # what the guest shows: ("lo",) without a network
    channel: str
    channel_reason: str | None  # why no better one is used
    capabilities: tuple[str, ...] | None
    snapshots: tuple[Snapshot, ...]
    directory: Path
    console_log: Path
    tags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        spec: MachineSpec,
        state: MachineState,
        backend: BackendReport,
        *,
        guest_nics: tuple[str, ...] | None,
        channel: str,
        channel_reason: str | None,
        capabilities: tuple[str, ...] | None,
        snapshots: tuple[Snapshot, ...],
        directory: Path,
        console_log: Path,
        tags: tuple[str, ...],
    ) -> MachineReport:
        """Put together what the spec, the hypervisor and the guest say."""
        return cls(
            name=spec.name,
            state=state,
            pid=backend.pid,
            uptime_s=backend.uptime_s,
            accel=backend.accel,
            accel_reason=backend.accel_reason,
            run_state=backend.run_state,
            image=spec.image,
            memory_mib=spec.memory_mib,
            cpus=spec.cpus,
            hypervisor=backend.hypervisor,
            disks=backend.disks,
            ports=backend.ports,
            nics=backend.nics,
            guest_nics=guest_nics,
            channel=channel,
            channel_reason=channel_reason,
            capabilities=capabilities,
            snapshots=snapshots,
            directory=directory,
            console_log=console_log,
            tags=tags,
        )
