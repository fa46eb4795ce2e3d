"""What VirtualBox tells, as values; the same whether its API or VBoxManage was asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ...errors import BackendError
from ...lifecycle import MachineState

__all__ = ["Disk", "Live", "Look", "Nic", "Saved", "Uart", "View", "VmState", "state_named"]


class VmState(StrEnum):
    """MachineState of VirtualBox's API, by name: its numbers changed with version 7.0."""

    POWERED_OFF = "PoweredOff"
    SAVED = "Saved"
    TELEPORTED = "Teleported"
    ABORTED = "Aborted"
    ABORTED_SAVED = "AbortedSaved"
    RUNNING = "Running"
    PAUSED = "Paused"
    STUCK = "Stuck"  # the "guru meditation": its process lives, the guest does not
    TELEPORTING = "Teleporting"
    LIVE_SNAPSHOTTING = "LiveSnapshotting"
    STARTING = "Starting"
    STOPPING = "Stopping"
    SAVING = "Saving"
    RESTORING = "Restoring"
    TELEPORTING_PAUSED = "TeleportingPausedVM"
    TELEPORTING_IN = "TeleportingIn"
    DELETING_SNAPSHOT_ONLINE = "DeletingSnapshotOnline"
    DELETING_SNAPSHOT_PAUSED = "DeletingSnapshotPaused"
    ONLINE_SNAPSHOTTING = "OnlineSnapshotting"
    RESTORING_SNAPSHOT = "RestoringSnapshot"
    DELETING_SNAPSHOT = "DeletingSnapshot"
    SETTING_UP = "SettingUp"
    SNAPSHOTTING = "Snapshotting"

    @property
    def as_ours(self) -> MachineState:
        """Our word for it. A stuck one runs: it has a process, which only `kill` ends."""
        return _OURS.get(self, MachineState.STOPPED)


_S, _M = VmState, MachineState
_OURS = {
    **dict.fromkeys(
        (
            *(_S.RUNNING, _S.STUCK, _S.TELEPORTING, _S.LIVE_SNAPSHOTTING, _S.STARTING),
            *(_S.STOPPING, _S.SAVING, _S.RESTORING, _S.TELEPORTING_IN),
            *(_S.DELETING_SNAPSHOT_ONLINE, _S.ONLINE_SNAPSHOTTING),
        ),
        _M.RUNNING,
    ),
    **dict.fromkeys((_S.PAUSED, _S.TELEPORTING_PAUSED, _S.DELETING_SNAPSHOT_PAUSED), _M.PAUSED),
    **dict.fromkeys((_S.ABORTED, _S.ABORTED_SAVED), _M.CRASHED),
}


def state_named(name: str) -> VmState:
    """Return the state of that name.

    Raises:
        BackendError: no VirtualBox that we know has it.
    """
    try:
        return VmState(name)
    except ValueError:
        raise BackendError(
            f"VirtualBox calls a machine {name!r}, which is not known here",
            hint="is it newer than this hostctl?",
        ) from None


@dataclass(frozen=True, slots=True)
class Look:
    """How a machine does. `pid`: who has it locked, if that is known."""

    state: VmState
    is_locked: bool
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Nic:
    """A network adapter that is enabled: its slot from 0, its type, and what it is attached to."""

    slot: int
    kind: str
    to: str


@dataclass(frozen=True, slots=True)
class Uart:
    """A serial line that is enabled, from 0. `mode`: "file", "pipe", or VirtualBox's own word."""

    slot: int
    mode: str
    path: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A medium that is attached. `base`: the first of its chain, if it is a difference."""

    path: str
    kind: str
    base: str | None
    virtual_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class View:
    """What a machine is made of."""

    id: str
    name: str
    memory_mib: int
    cpus: int
    settings: str
    nics: tuple[Nic, ...]
    uarts: tuple[Uart, ...]
    disks: tuple[Disk, ...]


@dataclass(frozen=True, slots=True)
class Live:
    """What only a machine that runs can tell. None is what could not be found out."""

    engine: str | None = None
    nics: tuple[Nic, ...] | None = None
    disk_read_bytes: int | None = None
    disk_written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot. `note` is its description, `ram_bytes` the size of its memory, if it has any."""

    id: str
    tag: str
    note: str
    created_s: float
    has_ram: bool
    ram_bytes: int | None
    is_current: bool
