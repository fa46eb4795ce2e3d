"""The verbs of VirtualBox, as the back end needs them. Two ways to speak them: `api`, `manage`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .disks import NewDisk
from .seen import Live, Look, Saved, View, VmState

__all__ = ["Blueprint", "Driver", "UartPlan"]


@dataclass(frozen=True, slots=True)
class UartPlan:
    """Where a serial line shall end: "file" at `path`, "pipe" (a socket at `path`), or "off"."""

    slot: int
    mode: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A machine to be made, in the folder `folder`/`name`. `is_emulated`: without VT-x or AMD-V."""

    id: str
    name: str
    folder: Path
    memory_mib: int
    cpus: int
    is_emulated: bool
    disks: Sequence[NewDisk]


class Driver(Protocol):
    """One VirtualBox. Machines are named by their id.

    Every call may raise `VirtualBoxError` (`NotFound` if there is no such machine),
    `DeadlineExceeded`, and `BridgeDied` when what was asked for may be done or not.
    """

    word: str
    """What is asked: "api" or "VBoxManage"."""

    async def version(self) -> str:
        """Return the version of VirtualBox."""

    async def find(self, name_or_id: str) -> View:
        """Return a machine of anybody's."""

    async def look(self, machine: str) -> Look:
        """Return how it does; cheap."""

    def changes(self, machine: str) -> AsyncGenerator[VmState, None]:
        """Yield the state that it is in, and each that it gets into; never ends by itself."""

    async def view(self, machine: str) -> View:
        """Return what it is made of."""

    async def live(self, machine: str) -> Live:
        """Ask a machine that runs."""

    async def create(self, blueprint: Blueprint) -> None:
        """Make and register a machine with no network adapter. All or nothing."""

    async def prepare(
        self, machine: str, uarts: Sequence[UartPlan], extra: Mapping[str, str]
    ) -> None:
        """Set what belongs to one start; an empty value of `extra` removes the key."""

    async def launch(self, machine: str, *, log: Path, frozen: bool = False) -> None:
        """Start it; return when it runs, or, if `frozen`, when it is paused at the beginning.

        `log` is for the last words of one that is started frozen.
        """

    async def power_button(self, machine: str) -> None:
        """Press it, once."""

    async def pause(self, machine: str) -> None:
        """Freeze it; repeatable."""

    async def resume(self, machine: str) -> None:
        """Let it go on; repeatable."""

    async def reset(self, machine: str) -> None:
        """Press the reset button."""

    async def power_off(self, machine: str, timeout_s: float) -> None:
        """End it, and wait until its process has gone; repeatable."""

    async def save_state(self, machine: str) -> None:
        """Write its memory to disk and end it."""

    async def discard_state(self, machine: str) -> None:
        """Drop a saved state; repeatable."""

    async def remove(self, machine: str, *, media: bool) -> None:
        """Unregister it; with `media` its disks, states and settings are deleted too."""

    async def clone(self, machine: str, snapshot: str, id: str, name: str, folder: Path) -> None:
        """Make a linked clone of a snapshot, as `folder`/`name`, with no network adapter."""

    async def connect_uart(self, machine: str, plan: UartPlan) -> None:
        """End a serial line of a running machine elsewhere."""

    async def set_extra(self, machine: str, key: str, value: str) -> None:
        """Set extra data; a machine that runs hears of it. An empty value removes it."""

    async def snapshots(self, machine: str) -> tuple[Saved, ...]:
        """Return the snapshots, oldest first."""

    async def save_snapshot(self, machine: str, tag: str, note: str, timeout_s: float) -> None:
        """Save memory and disks."""

    async def restore_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        """Make a snapshot the state of a machine that does not run."""

    async def delete_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        """Drop a snapshot, alive or not."""

    async def screenshot(self, machine: str) -> bytes:
        """Return its first screen as a PNG."""

    async def close(self) -> None:
        """Give back what is held; the driver may be used again."""
