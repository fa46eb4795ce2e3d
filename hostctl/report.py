"""What can be said about a machine at one moment, from all sides."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .backends.interface import MachineSpec
from .backends.report import BackendReport, DiskReport, Nic, PortReport, Snapshot
from .errors import HostctlError
from .lifecycle import MachineState

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["MachineReport", "guest_view"]

logger = logging.getLogger(__name__)

ANSWER_S: Final = 5.0


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


async def guest_view(machine: Machine) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the nics that a guest which is awake shows, and what its channel can do.

    None and None when it does not answer within seconds.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            result = await machine.exec("ls", "/sys/class/net", check=True)
            nics = tuple(result.stdout.decode("utf-8", "backslashreplace").split())
            capabilities = tuple(sorted((await machine._reach()).capabilities))
    except (HostctlError, TimeoutError) as err:
        logger.info("machine %s: its guest does not answer: %s", machine.name, err)
        return None, None
    return nics, capabilities
