"""The files of one machine: their paths, and the two small ones that are read at each step."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from .atomic import TEMPORARY, write_atomic

__all__ = ["FilePulse", "MachineFiles"]


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The paths of one machine. Making one creates nothing."""

    name: str
    directory: Path
    runtime: Path

    @property
    def spec(self) -> Path:
        return self.directory / "machine.json"

    @property
    def run(self) -> Path:
        """What is known of the machine's process; absent when it has none."""
        return self.directory / "run.json"

    @property
    def pid(self) -> Path:
        """QEMU's own pidfile: removed when it ends in order, left when it is killed."""
        return self.directory / "qemu.pid"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def epoch(self) -> Path:
        return self.directory / "epoch"

    @property
    def suspended(self) -> Path:
        return self.directory / "suspended"

    @property
    def attached(self) -> Path:
        """What `attach` brought into the guest."""
        return self.directory / "attached.json"

    @property
    def login(self) -> Path:
        """Who logs in at the guest's serial line, for our owner's eyes only."""
        return self.directory / "login.toml"

    @property
    def answered(self) -> Path:
        """There once the guest's agent has answered: from then on silence is worth waiting out."""
        return self.directory / "answered"

    @property
    def channel(self) -> Path:
        """Which line into the guest answered last; see connect.py."""
        return self.directory / "channel"

    @property
    def tags(self) -> Path:
        """The tags that select it; absent if there is none."""
        return self.directory / "tags.json"

    @property
    def frozen(self) -> Path:
        """There while somebody holds the guest's file systems frozen, or was killed doing so."""
        return self.directory / "frozen"

    @property
    def held(self) -> Path:
        """There while a guest is held still for a snapshot, or somebody was killed doing so."""
        return self.directory / "held"

    @property
    def quiesced(self) -> Path:
        """The tags of snapshots whose file systems were frozen; absent if there is none."""
        return self.directory / "quiesced.json"

    @property
    def unborn(self) -> Path:
        """There until a clone has taken over its template's moment."""
        return self.directory / "unborn"

    @property
    def newborn(self) -> Path:
        """Who makes the clone, until it is whole: one whose maker was killed is removed."""
        return self.directory / "newborn"

    @property
    def waiting(self) -> Path:
        """There as long as a clone waits in a pool, and is nobody's; see pool.py."""
        return self.directory / "waiting"

    @property
    def snapshots(self) -> Path:
        return self.directory / "snapshots.json"

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def disks(self) -> Path:
        return self.directory / "disks"

    @property
    def vmstate(self) -> Path:
        """The qcow2 file that holds the RAM of live snapshots."""
        return self.directory / "vmstate.qcow2"

    def socket(self, suffix: str) -> Path:
        return self.runtime / f"{suffix}.sock"

    def sweep(self) -> None:
        """Drop temporary files of killed writers. The caller holds the machine's lock."""
        for path in self.directory.glob(f".*{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def pulse(self) -> FilePulse:
        return FilePulse(self.epoch, self.suspended)


@dataclass(frozen=True, slots=True)
class FilePulse:
    """A machine's epoch and suspension, read from two small files at each call."""

    epoch_file: Path
    suspended_file: Path

    def epoch(self) -> int:
        """Return a number that changes whenever the guest's timeline is cut."""
        # By hand, for it is asked several times per command: 4 us, where read_bytes takes 20.
        try:
            fd = os.open(self.epoch_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return int(os.read(fd, 32) or b"0")
        except ValueError:
            return 0
        finally:
            os.close(fd)

    def suspended(self) -> bool:
        """Return whether hostctl paused the machine."""
        return self.suspended_file.exists()

    def cut(self) -> None:
        """Begin a new epoch. It only grows, also for a machine made anew under an old name."""
        epoch = max(self.epoch() + 1, time.time_ns())
        # Not synced: when the host dies, so do the machine and everyone who remembers an epoch.
        write_atomic(self.epoch_file, str(epoch).encode(), durable=False)

    def set_suspended(self, suspended: bool) -> None:
        if suspended:
            self.suspended_file.touch(mode=0o600)
        else:
            self.suspended_file.unlink(missing_ok=True)
