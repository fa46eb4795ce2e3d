"""Backend over what somebody else started: a QEMU by its monitor, or a line and nothing more.

Nothing is made, moved or removed here that hostctl did not bring: to delete such a machine is to
forget it. Ports that `plug` adds live as long as the QEMU, and `unplug` takes them away again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostctl_channels.links.stream import UnixEndpoint
from hostctl_channels.ports import SERIAL, suffix

from ...errors import BackendError, BootFailed, MonitorError
from ...lifecycle import MachineState
from ...state import MachineFiles, read_json, write_json
from ..interface import Capabilities, MachineSpec, Progress

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from ..report import BackendReport, Snapshot
    from .monitor import Monitor

__all__ = ["Foreign", "ForeignBackend", "is_monitor"]

_PROBE_S: Final = 3.0  # for a monitor's greeting; another client may hold it
_POLL_S: Final = 0.2
_LISTENING: Final = 0x10000  # of a socket's flags in /proc/net/unix: __SO_ACCEPTCON
_GONE_S: Final = 3.0  # for a guest to let go of an unplugged port
_LINES_ONLY = Capabilities(
    pause=False, reset=False, snapshots=False, live_snapshots=False, console=False, create=False
)
_MONITORED = Capabilities(
    snapshots=False, live_snapshots=False, console=False, create=False, plug=True
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Where somebody else's machine is reached. `lines`: Unix sockets, ttys or URLs by port.

    `baud` is the speed of a real tty, if not the usual one; other lines know none.
    """

    monitor: str | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    baud: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for machine.json."""
        return {"monitor": self.monitor, "lines": dict(self.lines), "baud": self.baud}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Foreign:
        """Rebuild from `to_json`'s values."""
        return cls(data["monitor"], dict(data["lines"]), data.get("baud"))


class ForeignBackend:
    """One machine that is not ours."""

    is_adopted = True

    def __init__(
        self, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any] | None = None
    ) -> None:
        self._spec = spec
        self._files = files
        self._where = Foreign.from_json(options or Foreign().to_json())
        self.capabilities = _MONITORED if self._where.monitor else _LINES_ONLY

    # Life

    async def prepare(self) -> None:
        raise BackendError("a machine of somebody else's is not made here", hint="attach to it")

    async def state(self) -> MachineState:
        places = [self._where.monitor] if self._where.monitor else self._where.lines.values()
        if not any(map(_is_there, places)):
            return MachineState.STOPPED
        return MachineState.PAUSED if self._files.suspended.exists() else MachineState.RUNNING

    def uptime_s(self) -> float | None:
        return None

    async def settle(self) -> MachineState:
        self._files.sweep()
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await self.state()

    async def launch(
        self,
        *,
        stop_on_reboot: bool = False,
        frozen: bool = False,
        progress: Progress | None = None,
    ) -> None:
        raise BootFailed(
            f"machine {self._spec.name!r} is not ours to start",
            hint="start it as those who made it do",
        )

    async def allow_reboot(self) -> None:
        return None

    async def power_down(self) -> None:
        async with self._monitor("press the power button") as qmp:
            await qmp.execute("cont")
            self._files.suspended.unlink(missing_ok=True)
            await qmp.execute("system_powerdown")

    async def wait_gone(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while (await self.state()).is_alive:  # noqa: ASYNC110 nobody tells us
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return False
        return True

    async def kill(self) -> None:
        if not (await self.state()).is_alive:
            return
        async with self._monitor("end it") as qmp:
            await qmp.execute("quit")

    async def pause(self) -> None:
        async with self._monitor("pause it") as qmp:
            await qmp.execute("stop")

    async def resume(self) -> None:
        async with self._monitor("resume it") as qmp:
            await qmp.execute("cont")

    async def reset(self) -> None:
        async with self._monitor("reset it") as qmp:
            await qmp.execute("system_reset")

    # Snapshots belong to who made the disks

    async def snapshots(self) -> tuple[Snapshot, ...]:
        return ()

    async def save_snapshot(self, tag: str, timeout_s: float) -> None:
        raise self._not_ours("snapshots")

    async def load_snapshot(self, tag: str, timeout_s: float) -> None:
        raise self._not_ours("snapshots")

    async def delete_snapshot(self, tag: str, timeout_s: float) -> None:
        raise self._not_ours("snapshots")

    # What there is

    async def describe(self) -> BackendReport:
        from ..report import BackendReport

        if self._where.monitor is None or not (await self.state()).is_alive:
            return BackendReport()
        from ..inventory import network_devices

        async with self._monitor("describe it") as qmp:
            run_state = (await qmp.execute("query-status"))["status"]
            return BackendReport(run_state=run_state, nics=await network_devices(qmp))

    async def endpoints(self, *, steal: bool = False) -> Mapping[str, Endpoint]:
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)  # for the locks
        lines = {
            name: _endpoint(name, place, self._where.baud)
            for name, place in self._where.lines.items()
        }
        plugged = {name: UnixEndpoint(self._files.socket(suffix(name))) for name in self._plugged()}
        return {**lines, **plugged}

    async def fetch_console(self) -> None:
        return None

    async def last_words(self) -> tuple[str, str]:
        return "", ""

    async def remove(self) -> None:
        return None

    async def close(self) -> None:
        return None

    # Ports of ours in a machine of theirs

    async def plug(self, names: Sequence[str]) -> None:
        """Add virtio-serial ports to the living machine; those that are there stay.

        Raises:
            BackendError: it has no virtio-serial device, or QEMU cannot open a socket of ours. What
                was plugged so far is known, and `unplug` takes it away.
        """
        self._files.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with self._monitor("add ports to it") as qmp:
            for name in names:
                if name not in self._plugged():
                    await self._plug(qmp, name)

    async def _plug(self, qmp: Monitor, name: str) -> None:
        part = f"hostctl-{secrets.token_hex(4)}"
        path = self._files.socket(suffix(name))
        path.unlink(missing_ok=True)
        address = {"type": "unix", "data": {"path": str(path)}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        await qmp.execute("chardev-add", {"id": part, "backend": backend})
        self._note({**self._plugged(), name: part})
        device = {"driver": "virtserialport", "id": part, "chardev": part, "name": name}
        try:
            await qmp.execute("device_add", device)
        except MonitorError as err:
            await qmp.execute("chardev-remove", {"id": part})
            self._note({n: p for n, p in self._plugged().items() if n != name})
            if "bus" not in err.reason.lower():
                raise
            raise BackendError(
                f"machine {self._spec.name!r} has no room for a virtio-serial port: {err.reason}",
                hint="its QEMU needs -device virtio-serial-pci,max_ports=31",
            ) from err

    async def unplug(self) -> None:
        """Take all ports away that `plug` has added; repeatable, also when the machine is gone."""
        if self._plugged() and (await self.state()).is_alive:
            async with self._monitor("take its ports away") as qmp:
                for part in self._plugged().values():
                    await _unplug(qmp, part)
        self._plugged_file.unlink(missing_ok=True)

    @property
    def _plugged_file(self) -> Path:
        return self._files.directory / "plugged.json"

    def _plugged(self) -> Mapping[str, str]:
        """Return the id in QEMU of each port that we have plugged."""
        return read_json(self._plugged_file) or {}

    def _note(self, plugged: Mapping[str, str]) -> None:
        write_json(self._plugged_file, plugged)

    # How

    def _monitor(self, doing: str) -> AbstractAsyncContextManager[Monitor]:
        from .monitor import monitor

        if self._where.monitor is None:
            raise BackendError(
                f"machine {self._spec.name!r}: cannot {doing}: it is a line, and no more is known",
                hint="attach to its QMP socket, where there is one",
            )
        return monitor(Path(self._where.monitor))

    def _not_ours(self, what: str) -> BackendError:
        return BackendError(
            f"machine {self._spec.name!r}: its {what} are with those who made it",
            hint="use their own tools",
        )


async def is_monitor(path: str) -> bool:
    """Tell whether a QEMU monitor greets at the Unix socket `path`."""
    from .monitor import monitor

    try:
        async with monitor(Path(path), timeout_s=_PROBE_S, is_alive=lambda: False):
            return True
    except MonitorError:
        return False


async def _unplug(qmp: Monitor, part: str) -> None:
    with_part = {"id": part}
    try:
        await qmp.execute("device_del", with_part)
    except MonitorError as err:
        if "not found" not in err.reason:
            raise
    # The chardev is busy until the guest's driver has let go.
    async with asyncio.timeout(_GONE_S):
        while True:
            try:
                await qmp.execute("chardev-remove", with_part)
                return
            except MonitorError as err:
                if "not found" in err.reason:
                    return
            await asyncio.sleep(0.05)


def _endpoint(name: str, place: str, baud: int | None) -> Endpoint:
    if name != SERIAL:
        return UnixEndpoint(Path(place))
    from hostctl_channels.links.serial_line import BAUD, SerialEndpoint

    return SerialEndpoint(place, baud or BAUD)


def _is_there(place: str) -> bool:
    """Tell whether a line is there: a URL is taken at its word, a socket must have a listener."""
    if "://" in place:
        return True
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return False
    return not stat.S_ISSOCK(mode) or _listens(place)


def _listens(path: str) -> bool:
    """Tell whether a Unix socket has a listener, without a visit: a guest would notice one."""
    with open("/proc/net/unix", "rb") as table:
        rows = [row.split(maxsplit=7) for row in table][1:]
    bound = {row[7].strip() for row in rows if len(row) == 8 and int(row[3], 16) & _LISTENING}
    names = {os.fsencode(path), os.fsencode(os.path.realpath(path))}
    # A relative name is what its listener called it, from a folder that we do not know.
    relative = tuple(b"/" + name for name in bound if not name.startswith((b"/", b"@")))
    return bool(names & bound) or any(name.endswith(relative) for name in names)
