"""What a hypervisor must offer: the Backend protocol, and the values that cross it.

A back end knows the life of one machine and where its ports are; nothing of the guest's inside. It
is mechanism: locks, idempotence, the clock of the timeline (epoch) and deadlines over several
steps are policy, and live in `hostctl.machine`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import ConfigError
from ..lifecycle import MachineState

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from ..state import MachineFiles
    from .report import BackendReport, DiskReport, Nic, Snapshot

__all__ = [
    "CONSOLE",
    "GUEST_AGENT",
    "Backend",
    "BackendReport",
    "Capabilities",
    "Clones",
    "DiskReport",
    "DiskSpec",
    "MachineSpec",
    "Nic",
    "Progress",
    "Saves",
    "Shows",
    "Snapshot",
    "check_name",
    "check_tag",
]

CONSOLE = "serial.0"  # the endpoint of the first serial line; the second is serial.1
GUEST_AGENT = "org.qemu.guest_agent.0"

Progress = Callable[[str], None]  # one short line of talk per step

ACCELS = ("auto", "kvm", "hvf", "tcg")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_LIMIT = 63  # a host name's; leaves room in socket paths
MEMORY_MIB = 256
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 16, 1024 * 1024
MAX_CPUS = 255  # the pc machine's own limit without an interrupt remapper


def check_name(name: str, what: str = "machine name") -> str:
    """Return `name` if it may name a machine.

    Raises:
        ConfigError: it may not; names become folders, so no slash, no leading dot or dash.
    """
    if len(name) > NAME_LIMIT or not NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} is not allowed",
            hint="use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
        )
    return name


def check_tag(tag: str) -> str:
    """Return `tag` if it may name a snapshot; the rule is that of machine names."""
    return check_name(tag, "snapshot tag")


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk: an overlay over `base`, which is never written, or an empty one of `size_bytes`.

    `format` is the format of `base`. Without it the header of `base` is read, but a base that
    names further files, or whose suffix disagrees, must be told: a raw disk's content belongs to
    its guest.
    """

    base: Path | None = None
    size_bytes: int | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        if self.base is None and self.size_bytes is None:
            raise ConfigError("a disk needs a base image or a size")
        if self.size_bytes is not None and self.size_bytes <= 0:
            raise ConfigError(f"disk size {self.size_bytes} is not positive")


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is made of. Boots from its kernel, its image's kernel, or its first disk."""

    name: str
    image: str | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    memory_mib: int = MEMORY_MIB
    cpus: int = 1
    disks: tuple[DiskSpec, ...] = ()
    accel: str = "auto"
    extra_args: tuple[str, ...] = ()
    is_adopted: bool = False  # somebody else's machine: what it boots from is its own affair

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.accel not in ACCELS:
            raise ConfigError(f"accelerator {self.accel!r} is unknown", hint=f"use one of {ACCELS}")
        if not MIN_MEMORY_MIB <= self.memory_mib <= MAX_MEMORY_MIB:
            raise ConfigError(f"memory of {self.memory_mib} MiB is out of range")
        if not 1 <= self.cpus <= MAX_CPUS:
            raise ConfigError(f"{self.cpus} cpus are out of range")
        boots = self.image is not None or self.kernel is not None or self.disks
        if not boots and not self.is_adopted:
            raise ConfigError("a machine needs an image, a kernel or a disk to boot from")

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain values for machine.json."""
        return {
            "name": self.name,
            "image": self.image,
            "kernel": _text(self.kernel),
            "initrd": _text(self.initrd),
            "append": self.append,
            "memory_mib": self.memory_mib,
            "cpus": self.cpus,
            "disks": [
                {"base": _text(d.base), "size_bytes": d.size_bytes, "format": d.format}
                for d in self.disks
            ],
            "accel": self.accel,
            "extra_args": list(self.extra_args),
            "is_adopted": self.is_adopted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MachineSpec:
        """Rebuild a spec from `to_json`'s values."""
        disks = tuple(
            DiskSpec(_path(d["base"]), d["size_bytes"], d["format"]) for d in data["disks"]
        )
        return cls(
            name=data["name"],
            image=data["image"],
            kernel=_path(data["kernel"]),
            initrd=_path(data["initrd"]),
            append=data["append"],
            memory_mib=data["memory_mib"],
            cpus=data["cpus"],
            disks=disks,
            accel=data["accel"],
            extra_args=tuple(data["extra_args"]),
            is_adopted=data.get("is_adopted", False),
        )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a back end can do, asked by name before trying."""

    pause: bool = True
    reset: bool = True
    snapshots: bool = True
    live_snapshots: bool = True
    channels: bool = True
    console: bool = True
    create: bool = True
    plug: bool = False  # ports of ours into a machine that runs


class Backend(Protocol):
    """One machine on one hypervisor. Who calls a changing method holds the machine's lock."""

    capabilities: Capabilities
    is_adopted: bool
    """Somebody else made the machine: to delete it is to forget it."""

    async def prepare(self) -> None:
        """Make the disks in the still private directory; on failure the caller removes it."""

    async def state(self) -> MachineState:
        """Return the state; cheap, changes nothing, needs no lock."""

    def uptime_s(self) -> float | None:
        """Return how long the machine's process has run, if that is known; asks nobody."""

    async def settle(self) -> MachineState:
        """Clean up what a killed hostctl or a dead hypervisor left; return the true state."""

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Start the machine's process; `frozen` does not let the guest run yet.

        Raises:
            BootFailed: the process ended at once; its last words are quoted, nothing is left.
        """

    async def allow_reboot(self) -> None:
        """End `stop_on_reboot`: from now on a guest that reboots stays."""

    async def power_down(self) -> None:
        """Press the power button, once; the guest may not care."""

    async def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the process has ended; False after the deadline."""

    async def kill(self) -> None:
        """End the process: politely to the hypervisor, then by SIGKILL. The guest is not asked."""

    async def pause(self) -> None:
        """Freeze the guest; repeatable."""

    async def resume(self) -> None:
        """Let the guest run; repeatable."""

    async def reset(self) -> None:
        """Press the reset button."""

    async def snapshots(self) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first, as the disk files themselves tell."""

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        """Save RAM and disks under `tag`; the state stays. On failure no `tag` is left."""

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        """Load `tag` into the running process and leave it frozen.

        Raises:
            SnapshotError: nothing was loaded; the guest goes on as before.
        """

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        """Drop `tag`, whether the machine runs or not."""

    async def describe(self) -> BackendReport:
        """Ask the hypervisor; needs no lock."""

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        """Return where each port is reached, by the port's full name, and `CONSOLE`.

        `steal` takes a line that somebody else holds away from them, where that can be done.
        """

    async def plug(self, names: Sequence[str]) -> None:
        """Add virtio-serial ports to the living machine; those that are there stay.

        Raises:
            BackendError: it has no place for them; `unplug` takes away what was added so far.
        """

    async def unplug(self) -> None:
        """Take away all ports that `plug` has added; repeatable, also when nothing lives."""

    async def fetch_console(self) -> None:
        """Make the console log's file current, where the log is kept elsewhere."""

    async def last_words(self) -> tuple[str, str]:
        """Return the ends of the hypervisor's stderr and of the console."""

    async def remove(self) -> None:
        """Remove the machine, which has no process, from the hypervisor; repeatable.

        Its disks go with it, unless it is adopted.
        """

    async def close(self) -> None:
        """Give back connections; the machine goes on, and this object may be used again."""


@runtime_checkable
class Saves(Protocol):
    """A back end that can write a machine's memory to disk and end it."""

    async def save(self) -> None:
        """Do so; the next `launch` goes on from there. On failure it runs as before."""

    async def is_saved(self) -> bool:
        """Tell whether the next `launch` goes on from a memory that was saved."""


@runtime_checkable
class Clones(Protocol):
    """A back end that can make a machine whose disks are differences to another's snapshot."""

    async def clone(self, name: str, files: MachineFiles, tag: str | None) -> Mapping[str, Any]:
        """Clone snapshot `tag`, or the newest, as machine `name`; return its options.

        `files` are the new machine's, whose directory is still private.

        Raises:
            SnapshotNotFound: there is none.
        """


@runtime_checkable
class Shows(Protocol):
    """A back end whose machines have a screen."""

    async def screenshot(self) -> bytes:
        """Return what is on the first screen of a machine that is alive, as a PNG."""


def __getattr__(name: str) -> object:
    # A dataclass costs a millisecond to import: `hostctl exec` pays for none that it never makes.
    if name in ("BackendReport", "DiskReport", "Nic", "Snapshot"):
        from . import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
