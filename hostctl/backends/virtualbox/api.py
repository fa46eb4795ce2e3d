"""The driver that speaks to VirtualBox's API, through the bridge."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from .bridge.wire import Answer
from .client import Bridge, borrow, give_back
from .counters import DISK_COUNTERS, disk_bytes
from .driver import Blueprint, UartPlan
from .faults import BridgeDied, VirtualBoxError
from .frozen import start_paused
from .place import Place
from .seen import Disk, Live, Look, Nic, Saved, Uart, View, VmState, state_named

__all__ = ["ApiDriver"]

logger = logging.getLogger(__name__)

START_S: Final = 90.0
CREATE_S: Final = 120.0
SETTLE_S: Final = 20.0  # the bridge gives up on session locks before we give up on the bridge
_MODES: Final = {"RawFile": "file", "HostPipe": "pipe"}


class ApiDriver:
    """See Driver."""

    word = "api"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._borrowed: Bridge | None = None

    @property
    def bridge(self) -> Bridge:
        """The bridge, for whoever else has something to ask of it."""
        if self._borrowed is None:
            self._borrowed = borrow(self._place)
        return self._borrowed

    async def version(self) -> str:
        return str((await self.bridge.connect())["version"])

    async def find(self, name_or_id: str) -> View:
        return await self.view(name_or_id)

    async def look(self, machine: str) -> Look:
        found = await self._value("machine.look", machine)
        return Look(state_named(found["state"]), found["locked"], found["pid"])

    async def changes(self, machine: str) -> AsyncGenerator[VmState, None]:
        async with self.bridge.asking("machine.watch", machine=machine) as answers:
            async for answer in answers:
                yield state_named(answer.value["state"])

    async def view(self, machine: str) -> View:
        found = await self._value("machine.view", machine)
        return View(
            id=found["id"],
            name=found["name"],
            memory_mib=found["memory_mib"],
            cpus=found["cpus"],
            settings=found["settings"],
            nics=tuple(Nic(**nic) for nic in found["nics"]),
            uarts=tuple(_uart(one) for one in found["uarts"] if one["enabled"]),
            disks=tuple(Disk(**disk) for disk in found["disks"]),
        )

    async def live(self, machine: str) -> Live:
        found = await self._value("machine.live", machine, counters=DISK_COUNTERS)
        nics = tuple(Nic(**nic) for nic in found["nics"])
        return Live(found["engine"], nics, *disk_bytes(found["counters"]))

    async def create(self, blueprint: Blueprint) -> None:
        await self._call(
            "machine.create",
            id=blueprint.id,
            name=blueprint.name,
            settings=_settings(blueprint.folder, blueprint.name),
            memory_mib=blueprint.memory_mib,
            cpus=blueprint.cpus,
            emulated=blueprint.is_emulated,
            disks=[{**disk._asdict(), "path": str(disk.path)} for disk in blueprint.disks],
            timeout_s=CREATE_S,
        )

    async def prepare(
        self, machine: str, uarts: Sequence[UartPlan], extra: Mapping[str, str]
    ) -> None:
        plans = [asdict(uart) for uart in uarts]
        await self._call("machine.prepare", machine, uarts=plans, extra=dict(extra))

    async def launch(self, machine: str, *, log: Path, frozen: bool = False) -> None:
        if frozen:
            program = f"{(await self.bridge.connect())['binaries']}/VBoxHeadless"
            await start_paused((*self._place.prefix, program), machine, log, self.look)
        else:
            await self._call("machine.launch", machine, timeout_s=START_S)

    async def power_button(self, machine: str) -> None:
        await self._call("machine.power_button", machine)

    async def pause(self, machine: str) -> None:
        await self._call("machine.pause", machine)

    async def resume(self, machine: str) -> None:
        await self._call("machine.resume", machine)

    async def reset(self, machine: str) -> None:
        await self._call("machine.reset", machine)

    async def power_off(self, machine: str, timeout_s: float) -> None:
        # Not a moment longer: whoever hangs is ended by other means.
        limit_s = timeout_s + 1
        await self.bridge.call(
            "machine.power_off", timeout_s=limit_s, machine=machine, within_s=timeout_s
        )

    async def save_state(self, machine: str) -> None:
        try:
            await self._call("machine.save_state", machine, timeout_s=CREATE_S)
        except VirtualBoxError as err:
            # 7.2, once in some hundred times on a busy host: VBoxSVC meets an object of its own
            # that is being made anew (i_saveStorageControllers); the machine goes on.
            if "E_ACCESSDENIED" not in str(err):
                raise
            logger.info("once more: %s", err)
            await self._call("machine.save_state", machine, timeout_s=CREATE_S)

    async def discard_state(self, machine: str) -> None:
        await self._call("machine.discard_state", machine)

    async def remove(self, machine: str, *, media: bool) -> None:
        await self._call("machine.remove", machine, media=media)

    async def clone(self, machine: str, snapshot: str, id: str, name: str, folder: Path) -> None:
        settings = _settings(folder, name)
        more = {"snapshot": snapshot, "id": id, "name": name, "settings": settings}
        await self._call("machine.clone", machine, timeout_s=CREATE_S, **more)

    async def connect_uart(self, machine: str, plan: UartPlan) -> None:
        await self._call("machine.uart", machine, **asdict(plan))

    async def set_extra(self, machine: str, key: str, value: str) -> None:
        await self._call("machine.extra", machine, key=key, value=value)

    async def snapshots(self, machine: str) -> tuple[Saved, ...]:
        return tuple(map(_saved, await self._value("snapshot.list", machine)))

    async def save_snapshot(self, machine: str, tag: str, note: str, timeout_s: float) -> None:
        await self._call("snapshot.save", machine, tag=tag, note=note, timeout_s=timeout_s)

    async def restore_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        await self._call("snapshot.restore", machine, snapshot=snapshot, timeout_s=timeout_s)

    async def delete_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        await self._call("snapshot.delete", machine, snapshot=snapshot, timeout_s=timeout_s)

    async def screenshot(self, machine: str) -> bytes:
        return (await self._call("machine.screenshot", machine)).body or b""

    async def close(self) -> None:
        bridge, self._borrowed = self._borrowed, None
        if bridge is not None:
            await give_back(bridge)

    async def _value(self, op: str, machine: str, **how: Any) -> Any:
        """Ask something that only looks: once more, if the bridge dies under it."""
        try:
            return (await self._call(op, machine, **how)).value
        except BridgeDied as err:
            logger.info("once more: %s", err)
            return (await self._call(op, machine, **how)).value

    async def _call(
        self, op: str, machine: str | None = None, *, timeout_s: float = 60.0, **more: Any
    ) -> Answer:
        if machine is not None:
            more["machine"] = machine
        return await self.bridge.call(op, timeout_s=timeout_s + SETTLE_S, **more)


def _settings(folder: Path, name: str) -> str:
    return str(folder / name / f"{name}.vbox")


def _uart(found: Mapping[str, Any]) -> Uart:
    return Uart(found["slot"], _MODES.get(found["mode"], found["mode"]), found["path"])


def _saved(found: Mapping[str, Any]) -> Saved:
    return Saved(
        id=found["id"],
        tag=found["tag"],
        note=found["note"],
        created_s=found["created_ms"] / 1000,
        has_ram=found["online"],
        ram_bytes=found["ram_bytes"],
        is_current=found["current"],
    )
