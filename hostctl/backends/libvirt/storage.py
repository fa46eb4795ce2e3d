"""The files of our domains on the hypervisor's host: a storage pool, and volumes named by domain.

Everything goes through libvirt, so it is the same on this host and another, and so QEMU, which
libvirt runs as a user of its own, may read it wherever our state directory is. All functions run in
the connection's owner thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ...errors import BackendError
from ..interface import DiskSpec
from .binding import libvirt
from .faults import not_trusted
from .target import is_local, is_privileged

__all__ = ["POOL", "Storage", "disk_format"]

POOL = "hostctl"
SYSTEM_POOL = "/var/lib/libvirt/hostctl"
PIECE = 1 << 20
MAX_LOG = 1 << 20  # of a console's log: its end
_OVERWRITE_NOTHING = 0
_BUILD = 1  # VIR_STORAGE_POOL_CREATE_WITH_BUILD
_RAW = ("", ".img", ".raw", ".bin", ".iso")


class Storage:
    """The volumes of one domain, by suffix: `disk0`, `kernel`, `console.log`, …"""

    def __init__(self, connect: Any, uri: str, domain: str) -> None:
        self._connect = connect
        self._domain = domain
        self._pool = _find_pool(connect, uri)
        self._folder = ET.fromstring(self._pool.XMLDesc(0)).findtext("target/path") or ""

    def path(self, suffix: str) -> str:
        """Return where a volume is, or would be, on the hypervisor's host."""
        return f"{self._folder}/{self._domain}.{suffix}"

    def names(self) -> tuple[str, ...]:
        """Return the suffixes that are there."""
        self._pool.refresh(0)
        prefix = f"{self._domain}."
        found = (str(name) for name in self._pool.listVolumes())
        return tuple(sorted(n.removeprefix(prefix) for n in found if n.startswith(prefix)))

    def volume(self, suffix: str) -> Any:
        """Return one that is there; libvirt's error when it is not."""
        return self._pool.storageVolLookupByName(f"{self._domain}.{suffix}")

    def remove(self, suffix: str) -> None:
        self.volume(suffix).delete(0)

    def upload(self, suffix: str, file: Path) -> str:
        """Copy a file of this host there; return its path."""
        size = file.stat().st_size
        volume = self._create(suffix, "raw", size)
        stream = self._connect.newStream(0)
        volume.upload(stream, 0, size, 0)
        try:
            with file.open("rb") as source:
                while piece := source.read(PIECE):
                    while piece:
                        piece = piece[stream.send(piece) :]
            stream.finish()
        except BaseException:
            stream.abort()
            raise
        return self.path(suffix)

    def create_disk(self, suffix: str, disk: DiskSpec, base: str | None) -> str:
        """Make a qcow2 disk, over `base` if there is one; return its path."""
        format = None if base is None else disk.format or disk_format(Path(base))
        self._create(suffix, "qcow2", disk.size_bytes, base, format)
        return self.path(suffix)

    def tail(self, suffix: str) -> bytes:
        """Return the end of a volume that grows."""
        self._pool.refresh(0)
        volume = self.volume(suffix)
        size = int(volume.info()[1])
        begin = max(0, size - MAX_LOG)
        stream = self._connect.newStream(0)
        volume.download(stream, begin, size - begin, 0)
        got = b""
        while piece := stream.recv(PIECE):
            got += piece
        stream.finish()
        return got

    def _create(
        self,
        suffix: str,
        format: str,
        size_bytes: int | None,
        base: str | None = None,
        base_format: str | None = None,
    ) -> Any:
        root = ET.Element("volume")
        ET.SubElement(root, "name").text = f"{self._domain}.{suffix}"
        if size_bytes is not None:
            ET.SubElement(root, "capacity", unit="bytes").text = str(size_bytes)
        if format == "raw":
            ET.SubElement(root, "allocation", unit="bytes").text = "0"
        target = ET.SubElement(root, "target")
        ET.SubElement(target, "format", type=format)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0600"
        if base is not None:
            store = ET.SubElement(root, "backingStore")
            ET.SubElement(store, "path").text = base
            ET.SubElement(store, "format", type=base_format or "raw")
        return self._pool.createXML(ET.tostring(root, encoding="unicode"), 0)


def disk_format(path: Path) -> str:
    """Tell the format of a base image by its name.

    Never by its first bytes: those of a raw disk are its guest's, who could make them name any file
    of the host.
    """
    if path.suffix == ".qcow2":
        return "qcow2"
    if path.suffix in _RAW:
        return "raw"
    raise not_trusted(path)


def _find_pool(connect: Any, uri: str) -> Any:
    """Return our pool; made when there is none, anew after a reboot of its host."""
    library = libvirt()
    try:
        pool = connect.storagePoolLookupByName(POOL)
    except library.libvirtError:
        return connect.storagePoolCreateXML(_pool_xml(_folder(uri)), _BUILD)
    if not pool.isActive():
        pool.create(0)
    return pool


def _folder(uri: str) -> str:
    if is_privileged(uri):
        return SYSTEM_POOL
    if is_local(uri):
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return str(Path(data) / "libvirt" / POOL)
    raise BackendError(
        f"libvirt at {uri} has no storage pool {POOL!r}, and where to make one is not known",
        hint=f"virsh --connect '{uri}' pool-define-as {POOL} dir --target FOLDER, pool-build, "
        "pool-start",
    )


def _pool_xml(folder: str) -> str:
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = POOL
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "path").text = folder
    # Passed through by QEMU's user, listed by nobody.
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0711"
    return ET.tostring(root, encoding="unicode")


def saved_tags(names: tuple[str, ...]) -> Iterator[str]:
    """Yield the tags of saved states among the suffixes of volumes."""
    for name in names:
        head, _, tag = name.partition(".")
        if head == "save" and tag:
            yield tag
