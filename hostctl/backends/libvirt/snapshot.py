"""Moments of a domain: inside its disks where it has any, else in files that hold its memory.

A domain with disks has libvirt's internal snapshots, memory and disks together. One without has
nothing to put them in: its memory is saved to a volume, which ends its QEMU, and restored from it,
which starts another. Both run in the connection's owner thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from ..report import Snapshot
from .binding import libvirt
from .storage import Storage, saved_tags

__all__ = ["DiskSnapshots", "MemorySnapshots"]

SAVE = "save."
_PAUSED = 3  # VIR_DOMAIN_PAUSED
_SAVE_RUNNING, _SAVE_PAUSED = 2, 4  # VIR_DOMAIN_SAVE_RUNNING, …_PAUSED
_REVERT_PAUSED = 2  # VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED


class DiskSnapshots:
    """libvirt's own, inside qcow2 disks. A revert starts another QEMU; a save does not."""

    def __init__(self, domain: Any, notes: Mapping[str, Any]) -> None:
        self._domain = domain
        self._notes = notes

    def list(self) -> tuple[Snapshot, ...]:
        xmls = [one.getXMLDesc(0) for one in self._domain.listAllSnapshots(0)]
        found = [_parsed(xml, self._notes) for xml in xmls]
        return tuple(sorted(found, key=lambda snapshot: snapshot.created))

    def save(self, tag: str) -> None:
        root = ET.Element("domainsnapshot")
        ET.SubElement(root, "name").text = tag
        self._domain.snapshotCreateXML(ET.tostring(root, encoding="unicode"), 0)

    def load(self, tag: str) -> None:
        self._domain.revertToSnapshot(self._domain.snapshotLookupByName(tag, 0), _REVERT_PAUSED)

    def delete(self, tag: str) -> None:
        self._domain.snapshotLookupByName(tag, 0).delete(0)


class MemorySnapshots:
    """Saved states, a volume each. `notes` remember which were paused, and when."""

    def __init__(
        self, connect: Any, domain: Any, storage: Storage, notes: Mapping[str, Any]
    ) -> None:
        self._connect = connect
        self._domain = domain
        self._storage = storage
        self._notes = notes

    def list(self) -> tuple[Snapshot, ...]:
        found = [self._described(tag) for tag in saved_tags(self._storage.names())]
        return tuple(sorted(found, key=lambda snapshot: snapshot.created))

    def save(self, tag: str) -> None:
        """Save, and go on in another QEMU. Should that fail, the machine is stopped, and saved."""
        is_paused = self._domain.state(0)[0] == _PAUSED
        flags = _SAVE_PAUSED if is_paused else _SAVE_RUNNING
        path = self._storage.path(SAVE + tag)
        self._domain.saveFlags(path, None, flags)
        self._connect.restoreFlags(path, None, flags)

    def load(self, tag: str) -> None:
        self._storage.volume(SAVE + tag)  # before anything ends: is it there?
        if self._domain.isActive():
            self._domain.destroy()
        self._connect.restoreFlags(self._storage.path(SAVE + tag), None, _SAVE_PAUSED)

    def delete(self, tag: str) -> None:
        self._storage.remove(SAVE + tag)

    def _described(self, tag: str) -> Snapshot:
        volume = self._storage.volume(SAVE + tag)
        seconds = ET.fromstring(volume.XMLDesc(0)).findtext("target/timestamps/mtime") or "0"
        note = self._notes.get(tag) or {}
        created = datetime.fromtimestamp(float(note.get("created") or seconds), UTC)
        is_paused = bool(note.get("paused"))
        return Snapshot(tag, created, int(volume.info()[2]), paused=is_paused)


def is_missing(err: Any) -> bool:
    """Tell whether libvirt's error says that there is no such snapshot or volume."""
    library = libvirt()
    return err.get_error_code() in (
        library.VIR_ERR_NO_DOMAIN_SNAPSHOT,
        library.VIR_ERR_NO_STORAGE_VOL,
    )


def _parsed(xml: str, notes: Mapping[str, Any]) -> Snapshot:
    root = ET.fromstring(xml)
    memory = root.find("memory")
    tag = root.findtext("name") or ""
    # libvirt counts whole seconds, which do not tell the order of two quick ones.
    seconds = (notes.get(tag) or {}).get("created") or root.findtext("creationTime") or 0
    return Snapshot(
        tag=tag,
        created=datetime.fromtimestamp(float(seconds), UTC),
        vm_state_bytes=None,  # libvirt does not know
        has_ram=memory is not None and memory.get("snapshot") != "no",
        paused=root.findtext("state") == "paused",
    )
