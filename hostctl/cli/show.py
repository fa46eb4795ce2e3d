"""`hostctl show`: all that is known about a machine, and the proof that it has no network."""

import argparse
from collections.abc import Iterator
from typing import Any

from hostctl.backends.report import DiskReport
from hostctl.machine import MachineReport

from . import opening, render, several, snapshot, units


def show(args: argparse.Namespace) -> int:
    """Describe machines."""
    return opening.run(_show(args))


def network(report: MachineReport) -> str:
    """Say in words what the two witnesses, hypervisor and guest, tell about the network."""
    if report.nics is None:
        return "not known: no running hypervisor to ask"
    if report.nics:
        found = ", ".join(f"{nic.kind} at {nic.address}" for nic in report.nics)
        return f"{len(report.nics)} NIC, says the hypervisor: {found}"
    inside = _interfaces(report)
    if inside is None:
        return "no NIC, says the hypervisor; the guest was not heard"
    if inside:
        return f"no NIC, says the hypervisor; but inside there is {', '.join(inside)}"
    return "no network: proved (the hypervisor has no NIC, inside there is nothing but lo)"


def is_isolated(report: MachineReport) -> bool | None:
    """Return whether both witnesses say there is no network; None when one was not heard."""
    inside = _interfaces(report)
    if report.nics or inside:
        return False
    return None if report.nics is None or inside is None else True


async def _show(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        chosen = several.chosen(controller, args)

        async def one(name: str) -> MachineReport:
            return await controller.machine(name).describe()

        async def tell(name: str, report: MachineReport, _: float) -> None:
            if args.json:
                several.show_json(chosen, name, "machine", _as_json(report))
            else:
                several.show(chosen, name, render.pairs(_lines(report)))

        return await several.each(args, chosen, one, tell)


def _interfaces(report: MachineReport) -> tuple[str, ...] | None:
    if report.guest_nics is None:
        return None
    return tuple(name for name in report.guest_nics if name != "lo")


def _lines(report: MachineReport) -> Iterator[tuple[str, str]]:
    yield "name", report.name
    yield "state", _state(report)
    if report.tags:
        yield "tags", ", ".join(report.tags)
    yield "image", report.image or "-"
    yield "shape", f"{report.cpus} CPU, {units.show_size(report.memory_mib * 2**20)} memory"
    yield "runs on", report.hypervisor
    if report.accel is not None:
        why = f" ({report.accel_reason})" if report.accel_reason else ""
        yield "accel", f"{report.accel}{why}"
    yield "network", network(report)
    yield "channel", _channel(report)
    if report.ports is not None:
        yield "ports", str(len(report.ports))
    for disk in report.disks:
        yield "disk", _disk(disk)
    for saved in report.snapshots:
        yield "snapshot", f"{saved.tag} of {saved.created.astimezone():%Y-%m-%d %H:%M:%S}"
    yield "folder", str(report.directory)
    yield "console", str(report.console_log)


def _state(report: MachineReport) -> str:
    if report.pid is None:
        return report.state.value
    return f"{report.state.value}, process {report.pid}, up {render.uptime(report.uptime_s)}"


def _channel(report: MachineReport) -> str:
    why = f" ({report.channel_reason})" if report.channel_reason else ""
    if report.capabilities is None:
        return f"{report.channel}: not asked, or no answer{why}"
    return f"{report.channel}: {', '.join(report.capabilities)}{why}"


def _disk(disk: DiskReport) -> str:
    base = f", over {disk.base}" if disk.base else ""
    sizes = f"{units.show_size(disk.used_bytes)} of {units.show_size(disk.virtual_bytes)} used"
    return f"{disk.path} ({sizes}{base})"


def _as_json(report: MachineReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "state": report.state.value,
        "pid": report.pid,
        "uptime_s": report.uptime_s,
        "tags": list(report.tags),
        "image": report.image,
        "cpus": report.cpus,
        "memory_mib": report.memory_mib,
        "hypervisor": report.hypervisor,
        "accel": report.accel,
        "accel_reason": report.accel_reason,
        "network": _network_json(report),
        "channel": report.channel,
        "channel_reason": report.channel_reason,
        "capabilities": None if report.capabilities is None else list(report.capabilities),
        "ports": None
        if report.ports is None
        else [{"name": port.name, "is_open": port.is_open} for port in report.ports],
        "disks": list(map(_disk_json, report.disks)),
        "snapshots": list(map(snapshot.as_json, report.snapshots)),
        "directory": str(report.directory),
        "console_log": str(report.console_log),
    }


def _network_json(report: MachineReport) -> dict[str, Any]:
    nics = report.nics
    return {
        "isolated": is_isolated(report),
        "nics": None if nics is None else [{"kind": n.kind, "address": n.address} for n in nics],
        "guest_interfaces": None if report.guest_nics is None else list(report.guest_nics),
    }


def _disk_json(disk: DiskReport) -> dict[str, Any]:
    return {
        "path": str(disk.path),
        "base": None if disk.base is None else str(disk.base),
        "virtual_bytes": disk.virtual_bytes,
        "used_bytes": disk.used_bytes,
    }
