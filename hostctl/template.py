"""Templates: a booted machine's moment, from which clones begin within a tenth of a second.

A template is a folder that appears by one rename, so it is whole or not there. It fits one QEMU:
what would make a clone differ from the machine that was saved is written down, and compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from . import procs
from .backends.accel import BINARY
from .backends.interface import DiskSpec, MachineSpec, Progress, check_name
from .backends.process import ProcessId
from .backends.qemu.argv import MACHINE
from .backends.qemu.backend import NAMES, QemuBackend
from .backends.qemu.moment import PREPARED, RAM, STATE
from .errors import TemplateExists, TemplateInUse, TemplateNotFound, TemplateUnfit
from .state import Home, read_json, remove_tree, write_json

__all__ = ["Template", "Templates"]

VERSION: Final = 1
RECORD: Final = "template.json"
_NEW, _GONE = ".new-", ".gone-"


@dataclass(frozen=True, slots=True)
class Template:
    """A template, whole. `fits` is what a QEMU must be to run it, `ram` and `digest` what it is.

    `made_of` tells an image from a later one; None if it is more than an image, booted.
    """

    name: str
    folder: Path
    spec: MachineSpec
    created_s: float
    fits: dict[str, Any]
    ram: dict[str, int]
    digest: str
    made_of: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise TemplateUnfit if its files are not what was saved, or QEMU is another one."""
        present = fitting(self.spec)
        for key, value in self.fits.items():
            if present.get(key) != value:
                raise TemplateUnfit(self.name, f"{key} was {value}, and is {present.get(key)}")
        try:
            is_same = _size(self.folder / RAM) == self.ram and _digest(self.folder) == self.digest
        except FileNotFoundError as err:
            raise TemplateUnfit(self.name, f"{err.filename} is gone") from err
        if not is_same:
            raise TemplateUnfit(self.name, "its files are not those that were saved")


class Templates:
    """The templates of a home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._root = home.templates

    def list(self) -> tuple[Template, ...]:
        """Return all, sorted by name."""
        try:
            names = sorted(name for name in os.listdir(self._root) if name[0] != ".")
        except FileNotFoundError:
            return ()
        return tuple(map(self.find, names))

    def find(self, name: str) -> Template:
        """Return a template. Raises TemplateNotFound."""
        folder = self._root / check_name(name, "template name")
        data = read_json(folder / RECORD)
        if data is None or data.get("version") != VERSION:
            raise TemplateNotFound(name)
        spec = MachineSpec.from_json(data["spec"])
        return Template(
            name,
            folder,
            spec,
            data["created_s"],
            data["fits"],
            data["ram"],
            data["digest"],
            data.get("made_of"),
        )

    async def create(
        self,
        name: str,
        spec: MachineSpec,
        warm: Sequence[str] = (),
        *,
        timeout_s: float = 120,
        progress: Progress | None = None,
        made_of: Mapping[str, Any] | None = None,
    ) -> Template:
        """Boot a machine of `spec`, run the lines `warm` in it, and keep its moment.

        Raises:
            TemplateExists: the name is taken.
            BootFailed: it did not boot; CommandFailed: a line of `warm` failed. Nothing is kept.
        """
        check_name(name, "template name")
        await self._sweep()
        if (self._root / name).exists():
            raise TemplateExists(name)
        self._root.mkdir(mode=0o700, exist_ok=True)
        new = self._root / f"{_NEW}{os.getpid()}-{os.urandom(4).hex()}"
        new.mkdir(mode=0o700)
        try:
            accel = await self._fill(new, replace(spec, name="t"), warm, timeout_s, progress)
            spec = replace(spec, name=name, accel=accel)
            try:
                new.rename(self._root / name)
            except OSError as err:
                raise TemplateExists(name) from err
            await self._finish(name, spec, made_of)
        finally:
            remove_tree(new)
        return self.find(name)

    async def delete(self, name: str) -> None:
        """Remove a template.

        Raises:
            TemplateInUse: a machine that came of it is still there; its disks, and its RAM while it
                runs, lie in the template.
        """
        found = self.find(name)
        if users := self.users(found):
            raise TemplateInUse(name, users)
        gone = self._root / f"{_GONE}{os.getpid()}-{os.urandom(4).hex()}"
        found.folder.rename(gone)
        await asyncio.to_thread(remove_tree, gone)

    def users(self, template: Template) -> tuple[str, ...]:
        """Return the names of the machines that came of it."""
        records = {name: read_json(self._home.files(name).spec) for name in self._home.names()}
        mine = str(template.folder)
        return tuple(
            name for name, data in records.items() if _options(data).get("template") == mine
        )

    async def _fill(
        self,
        new: Path,
        spec: MachineSpec,
        warm: Sequence[str],
        timeout_s: float,
        progress: Progress | None,
    ) -> str:
        """Boot in a home of its own, inside the new folder, and save; return the accelerator."""
        from .controller import Controller

        home = self._nursery(new)
        async with Controller(home) as controller:
            machine = await controller._make(spec, "qemu", {"ram": str(new / RAM)})
            try:
                await machine.start(timeout_s=timeout_s, progress=progress)
                for line in warm:
                    await machine.shell(line, timeout_s=timeout_s, check=True)
                await machine.close()
                assert isinstance(machine._backend, QemuBackend)
                accel = (await machine._backend.describe()).accel or spec.accel
                await machine._backend.save_moment(new / STATE)
                await machine._backend.kill()
                machine._files.disks.rename(new / "disks")
            finally:
                await machine.delete(force=True)
        remove_tree(home.state)
        remove_tree(home.runtime)
        return accel

    async def _finish(
        self, name: str, spec: MachineSpec, made_of: Mapping[str, Any] | None
    ) -> None:
        """Make the clones' overlays, which hold the final path of their bases; then it is there."""
        from .backends.qemu.snapshot import prepare_disks

        folder = self._root / name
        prepared = folder / PREPARED
        prepared.mkdir(mode=0o700)
        bases = [folder / "disks" / f"disk{n}.qcow2" for n in range(len(spec.disks))]
        await prepare_disks(bases, prepared)
        record = {
            "version": VERSION,
            "spec": spec.to_json(),
            "created_s": time.time(),
            "fits": fitting(spec),
            "ram": _size(folder / RAM),
            "digest": _digest(folder),
            "made_of": made_of,
        }
        await asyncio.to_thread(write_json, folder / RECORD, record)

    def _nursery(self, new: Path) -> Home:
        """Return the home in which the template `new` is booted. Its name is its sockets', too."""
        return Home(new / "home", self._home.runtime / f".t{new.name.rpartition('-')[2]}")

    async def _sweep(self) -> None:
        """Remove what a killed hostctl left half made or half removed, with its QEMU."""
        from .controller import Controller

        for entry in os.listdir(self._root) if self._root.exists() else ():
            left = self._root / entry
            if not entry.startswith((_NEW, _GONE)) or _is_alive(entry.split("-")[1]):
                continue
            home = self._nursery(left)
            if home.state.exists():
                async with Controller(home) as controller:
                    for machine in controller.machines():
                        await machine.delete(force=True)
            remove_tree(home.runtime)
            remove_tree(left)


def fitting(spec: MachineSpec) -> dict[str, Any]:
    """Return what this host's QEMU would make of a spec, as far as a moment depends on it.

    QEMU is known by its file: to ask it for its version takes longer than a clone's first step.
    """
    binary = Path(procs.find_tool(BINARY)).resolve()
    found = binary.stat()
    return {
        "qemu": [str(binary), found.st_size, found.st_mtime_ns],
        "machine": MACHINE,
        "accel": spec.accel,
        "memory_mib": spec.memory_mib,
        "cpus": spec.cpus,
        "disks": len(spec.disks),
        "ports": list(NAMES),
        "extra_args": list(spec.extra_args),
    }


def clone_spec(template: Template, name: str) -> MachineSpec:
    """Return what a clone is made of."""
    disks = tuple(
        DiskSpec(template.folder / "disks" / f"disk{n}.qcow2", format="qcow2")
        for n in range(len(template.spec.disks))
    )
    return replace(template.spec, name=name, disks=disks)


def clone_options(template: Template, owner_pid: int | None) -> dict[str, Any]:
    """Return what a clone's back end and `is_orphan` have to remember."""
    owner = None if owner_pid is None else ProcessId.of(owner_pid)
    options: dict[str, Any] = {"template": str(template.folder)}
    return options if owner is None else {**options, "owner": asdict(owner)}


def is_orphan(data: Any) -> bool:
    """Tell by its machine.json whether a machine's owner, if it has one, has ended."""
    owner = _options(data).get("owner")
    return owner is not None and not ProcessId(**owner).is_alive


def _options(data: Any) -> dict[str, Any]:
    return (data or {}).get("options") or {}


def _is_alive(pid: str) -> bool:
    return pid.isdecimal() and Path("/proc", pid).exists()


def _size(ram: Path) -> dict[str, int]:
    found = ram.stat()
    return {"bytes": found.st_size, "inode": found.st_ino, "mtime_ns": found.st_mtime_ns}


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / STATE).read_bytes()).hexdigest()
