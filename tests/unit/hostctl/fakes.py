"""A hypervisor and a guest that only remember, for the policy of Machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from hostctl.backends.interface import (
    BackendReport,
    Capabilities,
    MachineSpec,
    Progress,
    Snapshot,
)
from hostctl.errors import MonitorError
from hostctl.lifecycle import MachineState
from hostctl.state import MachineFiles
from hostctl_channels.errors import ChannelTimeout
from hostctl_channels.links.interface import Endpoint


class FakeBackend:
    """Keeps its state in memory.

    `refuses` names calls that fail, `dies_at` those that kill it, `heeds` how the guest ends.
    """

    capabilities = Capabilities()
    is_adopted = False

    def __init__(
        self, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any] | None = None
    ) -> None:
        self.files = files
        self.calls: list[str] = []
        self.refuses: set[str] = set()
        self.dies_at: set[str] = set()
        self.heeds = {"button"}
        self.is_alive = False
        self.has_crashed = False
        self.saved: dict[str, Snapshot] = {}

    async def state(self) -> MachineState:
        if self.is_alive:
            suspended = self.files.suspended.exists()
            return MachineState.PAUSED if suspended else MachineState.RUNNING
        return MachineState.CRASHED if self.has_crashed else MachineState.STOPPED

    def uptime_s(self) -> float | None:
        return 1.0 if self.is_alive else None

    async def settle(self) -> MachineState:
        return await self.state()

    async def prepare(self) -> None:
        self._call("prepare")

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._call("launch frozen" if frozen else "launch")
        self.is_alive, self.has_crashed = True, False

    async def allow_reboot(self) -> None:
        self._call("allow_reboot")

    async def power_down(self) -> None:
        self._call("power_down")
        self.is_alive = "button" not in self.heeds

    async def wait_gone(self, timeout_s: float) -> bool:
        return not self.is_alive

    async def kill(self) -> None:
        self._call("kill")
        self.is_alive = self.has_crashed = False
        self.files.suspended.unlink(missing_ok=True)

    async def pause(self) -> None:
        self._call("pause")

    async def resume(self) -> None:
        self._call("resume")

    async def reset(self) -> None:
        self._call("reset")

    async def snapshots(self) -> tuple[Snapshot, ...]:
        return tuple(self.saved.values())

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        self._call(f"save {tag}")
        paused = await self.state() is MachineState.PAUSED
        self.saved[tag] = Snapshot(tag, datetime.now(UTC), 1, paused=paused)

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        if "load" in self.dies_at:
            self.dies_at.discard("load")
            self.is_alive, self.has_crashed = False, True
            raise MonitorError("connect", "qemu has ended")
        self._call(f"load {tag}")

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        self._call(f"delete {tag}")

    async def describe(self) -> BackendReport:
        return BackendReport()

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        return {}

    async def plug(self, names: Sequence[str]) -> None:
        self._call("plug")

    async def unplug(self) -> None:
        self._call("unplug")

    async def fetch_console(self) -> None:
        self._call("fetch_console")

    async def remove(self) -> None:
        self._call("remove")

    async def close(self) -> None:
        return None

    async def last_words(self) -> tuple[str, str]:
        return "qemu: warning", "Kernel panic - not syncing\nKernel Offset: 0x0"

    def _call(self, name: str) -> None:
        epoch = self.files.pulse().epoch()
        self.calls.append(name)
        self.epochs = {**getattr(self, "epochs", {}), name: epoch}
        if name in self.refuses:
            raise MonitorError(name, "refused")


class FakeChannel:
    """Answers, unless it is mute."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.calls: list[str] = []
        self.is_mute = False
        self.is_warm = False
        self.line = None
        self.reason = ""

    async def connect(self, timeout_s: float) -> None:
        self.calls.append("connect")
        if self.is_mute:
            raise ChannelTimeout("connect: no answer")

    async def exec(self, command: Any, *, input: Any = None) -> None:
        self.calls.append(str(command))
        if "agent" in self.backend.heeds:
            self.backend.is_alive = False

    async def set_clock(self, unix_s: float) -> None:
        self.calls.append("set_clock")
        if self.is_mute:
            raise ChannelTimeout("set_clock: no answer")

    async def feed_entropy(self, data: bytes) -> None:
        self.calls.append("feed_entropy")

    @asynccontextmanager
    async def spawn(self, command: Any, *, stdin: bool = False) -> AsyncIterator[str]:
        self.calls.append("spawn")
        yield "process"

    async def close(self) -> None:
        self.calls.append("close")
