"""What VBoxManage prints, read: pure functions, no I/O."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from ...errors import BackendError
from .seen import Nic, Saved, Uart, VmState

__all__ = [
    "base_of",
    "error_code",
    "error_text",
    "fields",
    "media",
    "medium_fields",
    "nics",
    "snapshots",
    "state_of",
    "uarts",
]

MAX_SLOTS: Final = 36
UARTS: Final = 4

# VMState of showvminfo, from VBoxManageInfo.cpp's machineStateToName, where it is not the API's
# name in lower case.
_STATES: Final = {
    "poweroff": VmState.POWERED_OFF,
    "aborted-saved": VmState.ABORTED_SAVED,
    "gurumeditation": VmState.STUCK,
    "livesnapshotting": VmState.LIVE_SNAPSHOTTING,
    "onlinesnapshotting": VmState.ONLINE_SNAPSHOTTING,
    "deletingsnapshotlive": VmState.DELETING_SNAPSHOT_ONLINE,
    "deletingsnapshotlivepaused": VmState.DELETING_SNAPSHOT_PAUSED,
    "teleportingpausedvm": VmState.TELEPORTING_PAUSED,
    "teleportingin": VmState.TELEPORTING_IN,
}
_BY_LOWER: Final = {state.value.lower(): state for state in VmState}
_LINE: Final = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^=\s"]+))=(?P<value>.*)')
_CODE: Final = re.compile(r"\bcode \S* ?\((0x[0-9a-fA-F]{8})\)")
_NIC_KINDS: Final = {"virtio": "Virtio"}
_NIC_ENDS: Final = {
    "nat": "NAT",
    "natnetwork": "NATNetwork",
    "bridged": "Bridged",
    "intnet": "Internal",
    "hostonly": "HostOnly",
    "hostonlynetwork": "HostOnlyNetwork",
    "generic": "Generic",
    "cloud": "Cloud",
    "null": "Null",
}
_MODES: Final = {"file": "file", "server": "pipe"}


def fields(text: str) -> dict[str, str]:
    """Read `KEY="VALUE"` lines; of keys that come twice the last counts, other lines are skipped.

    A value may have several lines, as descriptions of snapshots do.
    """
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        value = match["value"]
        while value.startswith('"') and not _is_closed(value):
            value += "\n" + next(lines, '"')
        found[_plain(match["quoted"] or match["bare"])] = _unquoted(value)
    return found


def state_of(found: Mapping[str, str]) -> VmState:
    """Return the machine's state.

    Raises:
        BackendError: the word is not known.
    """
    word = found.get("VMState", "")
    state = _STATES.get(word) or _BY_LOWER.get(word)
    if state is None:
        raise BackendError(
            f"VBoxManage calls a machine {word!r}, which is not known here",
            hint="is it newer than this hostctl?",
        )
    return state


def nics(found: Mapping[str, str]) -> tuple[Nic, ...]:
    """Return the network adapters that are enabled."""
    return tuple(_nics(found))


def uarts(found: Mapping[str, str]) -> tuple[Uart, ...]:
    """Return the serial lines that are enabled."""
    return tuple(_uarts(found))


def media(found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the id and the path of each medium that is attached, controller by controller."""
    for number in range(MAX_SLOTS):
        name = found.get(f"storagecontrollername{number}")
        if name is None:
            return
        place = re.compile(rf"{re.escape(name)}-(\d+)-(\d+)")
        for key, path in found.items():
            match = place.fullmatch(key)
            if match and path not in ("none", "emptydrive"):
                yield found.get(f"{name}-ImageUUID-{match[1]}-{match[2]}", path), path


def medium_fields(text: str) -> dict[str, str]:
    """Read showmediuminfo's `Key: value` lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def snapshots(settings: str) -> tuple[Saved, ...]:
    """Return a machine's snapshots from its settings file, oldest first, with no `ram_bytes`.

    VBoxManage itself does not tell when they were made.
    """
    # An XML document of this host's own VirtualBox, never of a guest: no bomb to fear.
    machine = ET.fromstring(settings).find("{*}Machine")
    if machine is None:
        return ()
    current = machine.get("currentSnapshot", "").strip("{}")
    found = [_saved(one, current) for one in machine.iter() if _is_snapshot(one)]
    return tuple(sorted(found, key=lambda one: one.created_s))


def base_of(settings: str, medium: str) -> str | None:
    """Return where the first of a medium's chain is, None if it is itself the first.

    Differences know only their parent's id, which VBoxManage does not take; the machine's settings
    file has the whole chain.
    """
    bases = "{*}Machine/{*}MediaRegistry/{*}HardDisks/{*}HardDisk"
    for base in ET.fromstring(settings).iterfind(bases):
        if medium in {_id(one) for one in base.iter() if one is not base}:
            return base.get("location")
    return None


def error_code(stderr: str) -> int:
    """Return VirtualBox's result code in what VBoxManage complained, 0 if there is none."""
    match = _CODE.search(stderr)
    return int(match[1], 16) if match else 0


def error_text(stderr: str) -> str:
    """Return the complaint itself, without where in its source it came up."""
    prefix = "VBoxManage: error: "
    lines = [line.removeprefix(prefix) for line in stderr.splitlines() if line.startswith(prefix)]
    told = [line for line in lines if not line.startswith(("Details: ", "Context: "))]
    return " ".join(told) or stderr.strip()


def _id(element: ET.Element) -> str:
    return element.get("uuid", "").strip("{}")


def _is_closed(value: str) -> bool:
    body = value[1:].replace("\\\\", "").replace('\\"', "")
    return body.endswith('"')


def _unquoted(value: str) -> str:
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        return _plain(value[1:-1])
    return value


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _nics(found: Mapping[str, str]) -> Iterator[Nic]:
    for slot in range(MAX_SLOTS):
        end = found.get(f"nic{slot + 1}", "none")
        if end != "none":
            kind = found.get(f"nictype{slot + 1}", "")
            yield Nic(slot, _NIC_KINDS.get(kind, kind), _NIC_ENDS.get(end, end))


def _uarts(found: Mapping[str, str]) -> Iterator[Uart]:
    for slot in range(UARTS):
        if found.get(f"uart{slot + 1}", "off") != "off":
            mode, _, path = found.get(f"uartmode{slot + 1}", "").partition(",")
            yield Uart(slot, _MODES.get(mode, mode), path)


def _is_snapshot(element: ET.Element) -> bool:
    return element.tag.rpartition("}")[2] == "Snapshot"


def _saved(element: ET.Element, current: str) -> Saved:
    made = datetime.fromisoformat(element.get("timeStamp", "").replace("Z", "+00:00"))
    return Saved(
        id=_id(element),
        tag=element.get("name", ""),
        note=(element.findtext("{*}Description") or ""),
        created_s=made.astimezone(UTC).timestamp(),
        has_ram="stateFile" in element.attrib,
        ram_bytes=None,
        is_current=_id(element) == current,
    )
