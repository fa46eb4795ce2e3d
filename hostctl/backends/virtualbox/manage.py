"""The driver that speaks through VBoxManage: where the API cannot be had, and as its oracle.

Each call is a process of its own, and takes a tenth of a second. It shares no code with `api` but
the start of a frozen machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ... import procs
from ...errors import BackendError, DeadlineExceeded, ToolFailed, ToolMissing, Unsupported
from . import vminfo
from .counters import DISK_COUNTERS, disk_bytes
from .disks import DVD
from .driver import Blueprint, UartPlan
from .faults import OBJECT_NOT_FOUND, NotFound, VirtualBoxError, one_line
from .frozen import start_paused, vm_process
from .place import Place
from .seen import Disk, Live, Look, Saved, View, VmState

__all__ = ["ManageDriver"]

CALL_S: Final = 60.0
LONG_S: Final = 300.0
RETRY_S: Final = 15.0
LOOK_S: Final = 0.1
PORTS: Final = (("0x3f8", "4"), ("0x2f8", "3"), ("0x3e8", "4"), ("0x2e8", "3"))
PROGRAMS: Final = ("VBoxManage", "/usr/lib/virtualbox/VBoxManage")
ADAPTERS: Final = 8
NOT_RUNNING: Final = "is not currently running"
# The machine's process is gone, and VBoxSVC is about to see it; or VBoxSVC is, and another comes;
# or the machine's process has been started, and is about to lock it; or has just let go.
PASSING: Final = (
    "direct session",
    "FACTORY_NOT_REGISTERED",
    "started by LaunchVMProcess",
    "session is not locked",
)


class ManageDriver:
    """See Driver."""

    word = "VBoxManage"

    def __init__(self, place: Place) -> None:
        self._place = place

    async def version(self) -> str:
        return (await self._run("ask for the version", "--version")).strip()

    async def find(self, name_or_id: str) -> View:
        return await self.view(name_or_id)

    async def look(self, machine: str) -> Look:
        found = await self._info(machine)
        pid = vm_process(found["UUID"])
        return Look(vminfo.state_of(found), bool(found.get("SessionName")), pid)

    async def changes(self, machine: str) -> AsyncGenerator[VmState, None]:
        yield (last := (await self.look(machine)).state)
        while True:  # VBoxManage tells nobody
            # A look locks a machine that is down, which would be in the way of its start: when it
            # is, it is looked at no more until it runs. What becomes of a saved state is missed.
            if last.as_ours.is_alive or machine in await self._run("list", "list", "runningvms"):
                state = (await self.look(machine)).state
                if state is not last:
                    yield (last := state)
            await asyncio.sleep(LOOK_S)

    async def view(self, machine: str) -> View:
        found = await self._info(machine)
        settings = found["CfgFile"]
        return View(
            id=found["UUID"],
            name=found["name"],
            memory_mib=int(found["memory"]),
            cpus=int(found["cpus"]),
            settings=settings,
            nics=vminfo.nics(found),
            uarts=vminfo.uarts(found),
            disks=tuple([await self._disk(settings, *one) for one in vminfo.media(found)]),
        )

    async def live(self, machine: str) -> Live:
        # The adapters of a machine that runs are those of its settings; its engine is told nowhere.
        words = ("debugvm", machine, "statistics", f"--pattern={DISK_COUNTERS}")
        counters = await self._run("count bytes of", *words)
        return Live(None, vminfo.nics(await self._info(machine)), *disk_bytes(counters))

    async def create(self, blueprint: Blueprint) -> None:
        await self._run(
            *("create", "createvm", f"--name={blueprint.name}", f"--uuid={blueprint.id}"),
            *(f"--basefolder={blueprint.folder}", "--ostype=Linux26_64", "--register"),
        )
        try:
            await self._shape(blueprint)
            for index, disk in enumerate(blueprint.disks):
                await self._attach(blueprint.id, index, str(disk.path), disk.kind, disk.size_bytes)
        except BaseException:
            await self._run("take back", "unregistervm", blueprint.id)
            raise

    async def prepare(
        self, machine: str, uarts: Sequence[UartPlan], extra: Mapping[str, str]
    ) -> None:
        for key, value in extra.items():
            await self.set_extra(machine, key, value)
        now = {uart.slot: uart for uart in vminfo.uarts(await self._info(machine))}
        for plan in uarts:
            there = now.get(plan.slot)
            if there is None or (there.mode, there.path) != (plan.mode, plan.path):
                await self._run("prepare", "modifyvm", machine, *_uart_words(plan))

    async def launch(self, machine: str, *, log: Path, frozen: bool = False) -> None:
        if frozen:
            program = str(Path(self._program()).with_name("VBoxHeadless"))
            await start_paused((*self._place.prefix, program), machine, log, self._glance)
        else:
            await self._run("start", "startvm", machine, "--type=headless", timeout_s=LONG_S)

    async def power_button(self, machine: str) -> None:
        await self._control(machine, "acpipowerbutton")

    async def pause(self, machine: str) -> None:
        if (await self.look(machine)).state is not VmState.PAUSED:
            await self._control(machine, "pause")

    async def resume(self, machine: str) -> None:
        if (await self.look(machine)).state is not VmState.RUNNING:
            await self._control(machine, "resume")

    async def reset(self, machine: str) -> None:
        await self._control(machine, "reset")

    async def power_off(self, machine: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        try:
            await self._control(machine, "poweroff", timeout_s=timeout_s)
        except VirtualBoxError as err:
            if NOT_RUNNING not in str(err):
                raise
        # Its process first: showvminfo locks the machine for a moment, and who lingers waits on.
        while vm_process(machine) or (await self.look(machine)).is_locked:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"machine {machine} is still locked after {timeout_s:g} s")
            await asyncio.sleep(LOOK_S)

    async def save_state(self, machine: str) -> None:
        await self._control(machine, "savestate", timeout_s=LONG_S)

    async def discard_state(self, machine: str) -> None:
        if (await self.look(machine)).state in (VmState.SAVED, VmState.ABORTED_SAVED):
            await self._run("discard the state of", "discardstate", machine)

    async def remove(self, machine: str, *, media: bool) -> None:
        await self._run("remove", "unregistervm", machine, *(["--delete"] if media else []))

    async def clone(self, machine: str, snapshot: str, id: str, name: str, folder: Path) -> None:
        await self._run(
            *("clone", "clonevm", machine, f"--snapshot={snapshot}", "--options=link"),
            *(f"--name={name}", f"--uuid={id}", f"--basefolder={folder}", "--register"),
            timeout_s=LONG_S,
        )
        await self._run("isolate", "modifyvm", id, *_no_nics())

    async def connect_uart(self, machine: str, plan: UartPlan) -> None:
        await self._control(machine, f"changeuartmode{plan.slot + 1}", "disconnected")
        if plan.mode != "off":
            await self._control(machine, f"changeuartmode{plan.slot + 1}", *_end(plan))

    async def set_extra(self, machine: str, key: str, value: str) -> None:
        words = [value] if value else []
        await self._run("set extra data of", "setextradata", machine, key, *words)

    async def snapshots(self, machine: str) -> tuple[Saved, ...]:
        settings = (await self._info(machine))["CfgFile"]
        return vminfo.snapshots(_read(settings))

    async def save_snapshot(self, machine: str, tag: str, note: str, timeout_s: float) -> None:
        words = ("take", tag, f"--description={note}")
        await self._run("save a snapshot of", "snapshot", machine, *words, timeout_s=timeout_s)

    async def restore_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        words = ("restore", snapshot)
        await self._run("restore a snapshot of", "snapshot", machine, *words, timeout_s=timeout_s)

    async def delete_snapshot(self, machine: str, snapshot: str, timeout_s: float) -> None:
        words = ("delete", snapshot)
        await self._run("delete a snapshot of", "snapshot", machine, *words, timeout_s=timeout_s)

    async def screenshot(self, machine: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="hostctl-") as folder:
            path = Path(folder) / "screen.png"
            await self._control(machine, "screenshotpng", str(path))
            return path.read_bytes()

    async def close(self) -> None:
        return None

    # How

    async def _shape(self, blueprint: Blueprint) -> None:
        engine = ["--vm-execution-engine=interpreter"] if blueprint.is_emulated else []
        order = ["dvd", "disk"] if _begins_with_dvd(blueprint) else ["disk", "dvd"]
        boot = [f"--boot{at}={kind}" for at, kind in enumerate([*order, "none", "none"], start=1)]
        await self._run(
            *("shape", "modifyvm", blueprint.id, f"--memory={blueprint.memory_mib}"),
            *(f"--cpus={blueprint.cpus}", "--ioapic=on", "--rtcuseutc=on", "--vram=16"),
            *("--bioslogofadein=off", "--bioslogofadeout=off", "--bioslogodisplaytime=0"),
            *("--biosbootmenu=disabled", "--vrde=off", *boot, *engine, *_no_nics()),
        )

    async def _attach(self, id: str, index: int, path: str, kind: str, size_bytes: int) -> None:
        # Apart, not as --name=VALUE: these two count their words.
        bus, port, device = ("ide", index // 2, index % 2) if index < 4 else ("sata", index - 4, 0)
        if index in (0, 4):
            words = ("--name", bus, "--add", bus)
            await self._run("add a controller to", "storagectl", id, *words)
        medium = ["--type", "dvddrive"] if kind == DVD else ["--type", "hdd", "--setuuid", ""]
        await self._run(
            *("attach a disk to", "storageattach", id, "--storagectl", bus, "--port", str(port)),
            *("--device", str(device), *medium, "--medium", path),
        )
        if size_bytes:
            words = ("disk", path, "--resizebyte", str(size_bytes))
            await self._run("grow a disk of", "modifymedium", *words)

    async def _disk(self, settings: str, id: str, path: str) -> Disk:
        for kind, word in (("HardDisk", "disk"), ("DVD", "dvd")):
            with contextlib.suppress(VirtualBoxError):
                text = await self._run("show a medium of", "showmediuminfo", word, path)
                found = vminfo.medium_fields(text)
                return Disk(
                    path=path,
                    kind=kind,
                    base=_beside(settings, vminfo.base_of(_read(settings), id)),
                    virtual_bytes=_size(found.get("Capacity", "")),
                    used_bytes=os.path.getsize(path),  # noqa: ASYNC240 one look at a local file
                )
        raise NotFound(f"medium {path} is not known", OBJECT_NOT_FOUND)

    async def _info(self, machine: str) -> dict[str, str]:
        text = await self._run("look at", "showvminfo", machine, "--machinereadable")
        return vminfo.fields(text)

    async def _glance(self, machine: str) -> Look:
        """Look without a lock, which would be in the way of a start: what is not up is off."""
        if machine in await self._run("list", "list", "runningvms"):
            return await self.look(machine)
        return Look(VmState.POWERED_OFF, is_locked=vm_process(machine) is not None)

    async def _control(self, machine: str, *words: str, timeout_s: float = CALL_S) -> None:
        await self._run(words[0], "controlvm", machine, *words, timeout_s=timeout_s)

    async def _run(self, what: str, *words: str, timeout_s: float = CALL_S) -> str:
        """Run VBoxManage, again while somebody else is about to let go of the machine."""
        argv = (*self._place.prefix, self._program(), "-q", *words)
        patience = time.monotonic() + RETRY_S
        while True:
            try:
                return (await procs.run(argv, timeout_s=timeout_s)).stdout.decode(
                    "utf-8", "replace"
                )
            except ToolFailed as err:
                fault = _fault(what, err)
                if not _passes(fault) or time.monotonic() > patience:
                    raise fault from err
            await asyncio.sleep(LOOK_S)

    def _program(self) -> str:
        if self._place.manage:
            return self._place.manage
        if self._place.prefix:
            return PROGRAMS[0]
        for program in PROGRAMS:
            if found := shutil.which(program):
                return found
        raise ToolMissing(PROGRAMS[0], hint="install VirtualBox, or name it in HOSTCTL_VBOX_MANAGE")


def _beside(settings: str, path: str | None) -> str | None:
    """Return an absolute path: those in a settings file are relative to it where they can be."""
    return None if path is None else os.path.join(os.path.dirname(settings), path)


def _read(path: str) -> str:
    return Path(path).read_text("utf-8")


def _passes(fault: BackendError) -> bool:
    return isinstance(fault, VirtualBoxError) and (
        fault.is_busy or any(words in str(fault) for words in PASSING)
    )


def _fault(what: str, err: ToolFailed) -> BackendError:
    if err.returncode is None:
        return DeadlineExceeded(f"{what}: {err}")
    code, said = vminfo.error_code(err.stderr), one_line(vminfo.error_text(err.stderr))
    if code == OBJECT_NOT_FOUND:
        return NotFound(f"{what}: {said}", code)
    if "Unknown option" in said or "Invalid parameter" in said:
        return Unsupported(f"{what}: this VBoxManage cannot do that: {said}", what)
    return VirtualBoxError(f"{what}: {said}", code)


def _begins_with_dvd(blueprint: Blueprint) -> bool:
    return bool(blueprint.disks) and blueprint.disks[0].kind == DVD


def _no_nics() -> list[str]:
    return [f"--nic{slot}=none" for slot in range(1, ADAPTERS + 1)]


def _end(plan: UartPlan) -> tuple[str, str]:
    return ("server" if plan.mode == "pipe" else "file", plan.path)


def _uart_words(plan: UartPlan) -> list[str]:
    number = plan.slot + 1
    if plan.mode == "off":
        return [f"--uart{number}", "off"]
    return [f"--uart{number}", *PORTS[plan.slot], f"--uartmode{number}", *_end(plan)]


def _size(text: str) -> int:
    number, _, unit = text.partition(" ")
    return int(number) << 20 if number.isdecimal() and unit == "MBytes" else 0
