"""What libvirt keeps of a machine, made and looked up: its domain's XML, and its volumes.

One of these lives for one call in the owner thread, with that call's connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .binding import libvirt
from .domain_xml import Boot, DomainView, domain_xml, view
from .storage import Storage
from .target import is_local

if TYPE_CHECKING:
    from ..interface import MachineSpec
    from ..report import DiskReport
    from .target import Target

__all__ = ["Definition"]

CONSOLE_LOG = "console.log"


class Definition:
    """A machine of ours as libvirt knows it."""

    def __init__(self, connect: Any, spec: MachineSpec, target: Target) -> None:
        self._connect = connect
        self._spec = spec
        self._target = target
        self.storage = Storage(connect, target.uri, target.domain)

    def make(self) -> None:
        """Upload what it boots, create its disks, and define its domain."""
        for suffix, file in (("kernel", self._spec.kernel), ("initrd", self._spec.initrd)):
            if file is not None:
                self.storage.upload(suffix, file)
        for index, disk in enumerate(self._spec.disks):
            base = None if disk.base is None else str(disk.base)
            if disk.base is not None and not is_local(self._target.uri):
                base = self.storage.upload(f"base{index}{disk.base.suffix}", disk.base)
            self.storage.create_disk(_disk(index), disk, base)
        self.define("tcg", stop_on_reboot=False)

    def define(self, accel: str, *, stop_on_reboot: bool) -> None:
        """Define its domain anew, with an empty log of its console."""
        if CONSOLE_LOG in self.storage.names():
            self.storage.remove(CONSOLE_LOG)
        boot = self._boot(accel, stop_on_reboot)
        self._connect.defineXML(domain_xml(self._spec, self._target, boot))

    def _boot(self, accel: str, stop_on_reboot: bool) -> Boot:
        path = self.storage.path
        return Boot(
            accel=accel,
            disks=[path(_disk(index)) for index in range(len(self._spec.disks))],
            console_log=path(CONSOLE_LOG),
            kernel=path("kernel") if self._spec.kernel else None,
            initrd=path("initrd") if self._spec.initrd else None,
            stop_on_reboot=stop_on_reboot,
        )

    def describe(self) -> tuple[DomainView, tuple[DiskReport, ...]]:
        """Return what the live XML shows, and how large its disks are."""
        from ..report import DiskReport

        domain = self._domain()
        shown = view(domain.XMLDesc(0))
        reports = []
        for index, (device, source) in enumerate(shown.disks):
            disks = self._spec.disks
            base = disks[index].base if index < len(disks) else None
            try:
                capacity, allocation, _ = domain.blockInfo(device, 0)
            except libvirt().libvirtError:  # not every driver tells, nor of every disk
                continue
            reports.append(DiskReport(Path(source), base, capacity, allocation))
        return shown, tuple(reports)

    def console_log(self) -> bytes:
        """Return the end of what its console said since it was started."""
        return self.storage.tail(CONSOLE_LOG)

    def undefine(self) -> None:
        """Undefine its domain, with all that libvirt itself keeps of it."""
        library = libvirt()
        self._domain().undefineFlags(
            library.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | library.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | library.VIR_DOMAIN_UNDEFINE_NVRAM
        )

    def erase(self) -> None:
        """Remove its domain and its volumes, from whatever was made of them."""
        library = libvirt()
        try:
            domain = self._domain()
        except library.libvirtError as err:
            if err.get_error_code() != library.VIR_ERR_NO_DOMAIN:
                raise
        else:
            if domain.isActive():
                domain.destroy()
            self.undefine()
        for suffix in self.storage.names():
            self.storage.remove(suffix)

    def _domain(self) -> Any:
        return self._connect.lookupByUUIDString(self._target.uuid)


def _disk(index: int) -> str:
    return f"disk{index}.qcow2"
