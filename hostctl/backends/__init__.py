"""The hypervisors: power, devices, sockets; nothing about guests' insides."""

from .interface import (
    Backend,
    BackendReport,
    Capabilities,
    DiskReport,
    DiskSpec,
    MachineSpec,
    Nic,
    Snapshot,
)
from .registry import open_backend

__all__ = [
    "Backend",
    "BackendReport",
    "Capabilities",
    "DiskReport",
    "DiskSpec",
    "MachineSpec",
    "Nic",
    "Snapshot",
    "open_backend",
]
