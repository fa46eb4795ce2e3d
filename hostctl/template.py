"""Templates: a booted machine's moment, from which clones begin within a tenth of a second.

A template fits one QEMU: what would make a clone differ from the machine that was saved is written
down, and compared. How one is made is template_builder.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from . import __version__, procs
from .backends.accel import BINARY
from .backends.interface import MachineSpec, check_name
from .backends.qemu.argv import MACHINE, RAM_ID
from .backends.qemu.backend import NAMES
from .backends.qemu.moment import RAM, STATE
from .errors import TemplateInUse, TemplateNotFound, TemplateUnfit
from .record import read_options
from .state import Home, read_json, remove_tree, write_json

__all__ = ["Recipe", "Template", "Templates", "name_of", "write_record"]

VERSION: Final = 1
RECORD: Final = "template.json"
# The moment of a machine that ran cannot be had again: it outlives its image.
_FREE: Final = frozenset({"image"})
GONE: Final = ".gone-"  # of a folder that is being removed, before the pid of who does


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a template is made, in the words of who asked for it: a later image is found anew."""

    spec: MachineSpec
    warm: tuple[str, ...] = ()
    on_clone: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A template, whole. `fits` is what a QEMU must be to run it, `ram` and `digest` what it is.

    `on_clone` is the script that each clone runs first; `recipe` is how to make it again; `made_of`
    tells its image from a later one.
    """

    name: str
    folder: Path
    spec: MachineSpec
    created_s: float
    fits: dict[str, Any]
    ram: dict[str, int]
    digest: str
    on_clone: str | None = None
    recipe: Recipe | None = None
    made_of: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read what `write_record` wrote; None if there is no template, or not of this version."""
        data = read_json(folder / RECORD)
        if data is None or data.get("version") != VERSION:
            return None
        on_clone, recipe = data.get("on_clone"), None
        if again := data.get("recipe"):
            spec = MachineSpec.from_json(again["spec"])
            recipe = Recipe(spec, tuple(again["warm"]), on_clone)
        return cls(
            folder.name,
            folder,
            MachineSpec.from_json(data["spec"]),
            data["created_s"],
            data["fits"],
            data["ram"],
            data["digest"],
            on_clone,
            recipe,
            data.get("made_of"),
        )

    @property
    def is_old(self) -> bool:
        """Tell whether its image is another one by now, or hostctl, which may bring a new agent."""
        is_made_again = self.recipe is not None and self.recipe.spec.image is not None
        return is_made_again and self.made_of != made_of(self.spec)

    def check(self) -> None:
        """Raise TemplateUnfit if its files are not what was saved, or QEMU is another one."""
        present = fitting(self.spec)
        for key in present.keys() - self.fits.keys() - _FREE:
            raise TemplateUnfit(self.name, f"another hostctl made it, that knew of no {key}")
        for key, value in self.fits.items():
            if key == "image" and present.get(key) != value:
                raise TemplateUnfit(self.name, f"image {self.spec.image} was built anew")
            if present.get(key) != value:
                raise TemplateUnfit(self.name, f"{key} was {value}, and is {present.get(key)}")
        try:
            is_same = _size(self.folder / RAM) == self.ram and _digest(self.folder) == self.digest
        except FileNotFoundError as err:
            raise TemplateUnfit(self.name, f"{err.filename} is gone") from err
        if not is_same:
            raise TemplateUnfit(self.name, "its files are not those that were saved")


def write_record(
    folder: Path, spec: MachineSpec, on_clone: str | None, recipe: Recipe | None
) -> None:
    """Write down what a template is, whose files are in place; from now on it is one.

    `recipe` is how to make it again, None of what cannot be had again.
    """
    free = frozenset() if recipe is not None else _FREE
    record = {
        "on_clone": on_clone,
        "recipe": _recipe_json(recipe),
        "version": VERSION,
        "spec": spec.to_json(),
        "created_s": time.time(),
        "fits": {key: value for key, value in fitting(spec).items() if key not in free},
        "ram": _size(folder / RAM),
        "digest": _digest(folder),
        "made_of": made_of(spec),
    }
    write_json(folder / RECORD, record)


class Templates:
    """The templates of a home: found, told apart from what is none yet, removed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._root = home.templates

    def list(self) -> tuple[Template, ...]:
        """Return all, sorted by name."""
        try:
            names = sorted(name for name in os.listdir(self._root) if name[0] != ".")
        except FileNotFoundError:
            return ()
        return tuple(filter(None, map(self._found, names)))

    def _found(self, name: str) -> Template | None:
        try:
            return self.find(name)
        except TemplateNotFound:  # deleted since we looked, or left half made by a killed hostctl
            return None

    def find(self, name: str) -> Template:
        """Return a template. Raises TemplateNotFound."""
        found = Template.read(self._root / check_name(name, "template name"))
        if found is None:
            raise TemplateNotFound(name)
        return found

    def fitting(self, name: str) -> Template:
        """Return a template from which clones can be made. Raises as `find` and `check` do."""
        found = self.find(name)
        found.check()
        return found

    async def delete(self, name: str) -> None:
        """Remove a template.

        Raises:
            TemplateInUse: a machine that came of it is still there; its disks, and its RAM while it
                runs, lie in the template; or it has a pool.
        """
        found = self.find(name)
        if (self._home.pools / name / "pool.json").exists():
            raise TemplateInUse(name, ["its pool"], hint=f"hostctl pool delete {name}")
        await self.remove(found)

    async def remove(self, found: Template) -> None:
        """Remove a template, whose pool may stay. Raises TemplateInUse: machines came of it."""
        if users := self.users(found):
            raise TemplateInUse(found.name, users)
        gone = self._root / f"{GONE}{os.getpid()}-{os.urandom(4).hex()}"
        found.folder.rename(gone)
        await asyncio.to_thread(remove_tree, gone)

    def users(self, template: Template) -> tuple[str, ...]:
        """Return the names of the machines that came of it."""
        options = {name: read_options(self._home.files(name)) for name in self._home.names()}
        mine = str(template.folder)
        return tuple(name for name, found in options.items() if found.get("template") == mine)


def name_of(spec: MachineSpec) -> str:
    """Return what the template of an image is called: "tiny", "tiny-512", "tiny-512-2cpus"."""
    plain = MachineSpec("any", image=spec.image)
    memory = "" if spec.memory_mib == plain.memory_mib else f"-{spec.memory_mib}"
    cpus = "" if spec.cpus == plain.cpus else f"-{spec.cpus}cpus"
    return f"{spec.image}{memory}{cpus}"


def made_of(spec: MachineSpec) -> dict[str, Any]:
    """Return what tells a spec's image from a later one of that name.

    By files, for its digest takes longer than a clone.
    """
    files = [path.resolve() for path in (spec.kernel, spec.initrd) if path and path.exists()]
    stats = [(path, path.stat()) for path in files]
    return {
        "hostctl": __version__,
        "files": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats],
    }


def fitting(spec: MachineSpec) -> dict[str, Any]:
    """Return what this host's QEMU would make of a spec, as far as a moment depends on it.

    QEMU is known by its file: to ask it for its version takes longer than a clone's first step.
    """
    return {
        "qemu": _stamp(Path(procs.find_tool(BINARY)).resolve()),
        "image": None if spec.image is None else [_stamp(spec.kernel), _stamp(spec.initrd)],
        "machine": MACHINE,
        "ram": RAM_ID,
        "accel": spec.accel,
        "memory_mib": spec.memory_mib,
        "cpus": spec.cpus,
        "disks": len(spec.disks),
        "ports": list(NAMES),
        "extra_args": list(spec.extra_args),
    }


def _recipe_json(recipe: Recipe | None) -> dict[str, Any] | None:
    if recipe is None:
        return None
    return {"spec": recipe.spec.to_json(), "warm": list(recipe.warm)}


def _stamp(path: Path | None) -> list[Any] | None:
    """Return what changes when a file is replaced."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _size(ram: Path) -> dict[str, int]:
    found = ram.stat()
    return {"bytes": found.st_size, "inode": found.st_ino, "mtime_ns": found.st_mtime_ns}


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / STATE).read_bytes()).hexdigest()
