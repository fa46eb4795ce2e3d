"""Which network devices a running machine has: asked of QEMU, not of our own arguments.

Two independent questions, because each misses something. The object tree knows every emulated NIC
on any bus (PCI, USB, ISA, mmio), for each has a `netdev` property; PCI class codes also show a
passed-through card, whose driver in QEMU knows no netdev.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

from ..errors import MonitorError
from .report import Nic

__all__ = ["Asks", "network_devices"]

# Where QEMU keeps devices: named by the user, unnamed by the user, made by the machine type.
CONTAINERS = ("/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached")
PCI_BASE_CLASS_NETWORK = 0x02  # PCI Code and ID Assignment specification, 1.3


class Asks(Protocol):
    """A way to a QEMU's monitor."""

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command and return its answer. Raises MonitorError."""


async def network_devices(qmp: Asks) -> tuple[Nic, ...]:
    """Return every network device; empty means that both questions said none."""
    emulated = [nic async for nic in _objects(qmp)]
    seen = {nic.address for nic in emulated}
    buses = await qmp.execute("query-pci")
    others = [nic for bus in buses for nic in _pci(bus) if nic.address not in seen]
    return (*emulated, *others)


async def _objects(qmp: Asks) -> AsyncIterator[Nic]:
    for container in CONTAINERS:
        for child in await qmp.execute("qom-list", {"path": container}):
            kind = child["type"]
            if not kind.startswith("child<"):
                continue
            path = f"{container}/{child['name']}"
            names = {item["name"] for item in await qmp.execute("qom-list", {"path": path})}
            if "netdev" in names:
                yield Nic(kind[len("child<") : -1], await _address(qmp, path, names))


async def _address(qmp: Asks, path: str, names: set[str]) -> str:
    if "addr" in names:
        with contextlib.suppress(
            MonitorError, TypeError
        ):  # not a PCI one: its path says where it is
            devfn = await qmp.execute("qom-get", {"path": path, "property": "addr"})
            return _pci_address(devfn >> 3, devfn & 7)
    return path


def _pci(bus: Mapping[str, Any]) -> Iterator[Nic]:
    for device in bus["devices"]:
        code = device["class_info"]["class"]
        if code >> 8 == PCI_BASE_CLASS_NETWORK:
            address = _pci_address(device["slot"], device["function"])
            yield Nic(device["class_info"].get("desc", f"class {code:04x}"), address)
        if "pci_bridge" in device:
            for inner in device["pci_bridge"].get("devices", ()):
                yield from _pci({"devices": [inner]})


def _pci_address(slot: int, function: int) -> str:
    return f"pci {slot:02x}.{function}"
