"""Templates: a booted machine's moment, from which clones begin within a tenth of a second.

A template is a folder that appears by one rename, so it is whole or not there. It fits one QEMU:
what would make a clone differ from the machine that was saved is written down, and compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import __version__, procs
from .backends.accel import BINARY
from .backends.interface import MachineSpec, Progress, check_name
from .backends.qemu.argv import MACHINE, RAM_ID
from .backends.qemu.backend import NAMES, QemuBackend
from .backends.qemu.moment import PREPARED, RAM, STATE
from .errors import (
    BackendError,
    HostctlError,
    TemplateExists,
    TemplateInUse,
    TemplateNotFound,
    TemplateUnfit,
)
from .onclone import check_script
from .record import Record, read_options
from .source import Source, forget_snapshot
from .state import (
    Home,
    locked,
    read_json,
    remove_tree,
    write_json,
)

if TYPE_CHECKING:
    from .machine import Machine

    Begin = Callable[[Machine, Path], Awaitable[None]]  # the second is the template's new folder

__all__ = ["Recipe", "Template", "Templates", "name_of"]

logger = logging.getLogger(__name__)

VERSION: Final = 1
RECORD: Final = "template.json"
QUEUE_S: Final = 600.0  # whoever is before us may have to build the image, and to boot it
FULL_BYTES: Final = 1 << 20  # with less left, what failed, failed for that
# The moment of a machine that ran cannot be had again: it outlives its image.
_FREE: Final = frozenset({"image"})
_NEW, _GONE = ".new-", ".gone-"


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
        return tuple(filter(None, map(self._found, names)))

    def _found(self, name: str) -> Template | None:
        try:
            return self.find(name)
        except TemplateNotFound:  # deleted since we looked, or left half made by a killed hostctl
            return None

    def find(self, name: str) -> Template:
        """Return a template. Raises TemplateNotFound."""
        folder = self._root / check_name(name, "template name")
        data = read_json(folder / RECORD)
        if data is None or data.get("version") != VERSION:
            raise TemplateNotFound(name)
        on_clone, recipe = data.get("on_clone"), None
        if again := data.get("recipe"):
            spec = MachineSpec.from_json(again["spec"])
            recipe = Recipe(spec, tuple(again["warm"]), on_clone)
        return Template(
            name,
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

    def fitting(self, name: str) -> Template:
        """Return a template from which clones can be made. Raises as `find` and `check` do."""
        found = self.find(name)
        found.check()
        return found

    async def create(
        self,
        name: str,
        recipe: Recipe,
        *,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        """Boot a machine, run the recipe's warm lines in it, and keep its moment.

        Raises:
            TemplateExists: the name is taken.
            Busy: somebody else is making one of that name.
            BootFailed: it did not boot; CommandFailed: a warm line failed. Nothing is kept.
        """
        check_name(name, "template name")
        check_script(recipe.on_clone)
        async with self._locked(name, 0):
            return await self._create(name, recipe, timeout_s, progress)

    async def create_from(
        self, name: str, source: Source, warm: Sequence[str], on_clone: str | None
    ) -> Template:
        """Keep the present moment of a machine, in whose copy the warm lines are run.

        Raises:
            As `create`; and WrongState: the machine does not run.
        """
        check_name(name, "template name")
        check_script(on_clone)
        async with self._locked(name, 0):
            spec = replace(source.spec, accel=await source.accel())
            return await self._keep(
                name, spec, source.pour, Recipe(spec, tuple(warm), on_clone), None
            )

    async def ensure(
        self,
        name: str,
        first: Recipe | None,
        *,
        timeout_s: float = 120,
        progress: Progress | None = None,
    ) -> Template:
        """Return a template that fits: the one that is there, made anew if it must and can be.

        Where there is none, `first` says how to make it; and with `first`, one of an older image is
        made anew unless machines use it. Others who ask at once wait for the first of them.

        Raises:
            TemplateNotFound: there is none, and nothing to make it of.
            TemplateUnfit: it cannot be made anew: it did not come of an image, or is in use.
        """
        with contextlib.suppress(TemplateNotFound, TemplateUnfit):
            if first is None or not self.find(name).is_old:
                return self.fitting(name)
        async with self._locked(name, QUEUE_S):
            recipe = await self._wanting(name, first)
            if isinstance(recipe, Template):
                return recipe
            if recipe.spec.image is not None:
                await asyncio.to_thread(_build, recipe.spec.image, progress)
            if progress is not None:
                progress(f"making the template {name} of the image {recipe.spec.image}, once")
            return await self._create(name, recipe, timeout_s, progress)

    async def _wanting(self, name: str, first: Recipe | None) -> Template | Recipe:
        """Return the template if it will do; else how to make it, and nothing is in the way."""
        try:
            found = self.fitting(name)
        except TemplateNotFound:
            if first is None:
                raise
            return first
        except TemplateUnfit as err:
            return await self._give_way(err)
        if first is None or not found.is_old:
            return found
        try:
            return await self._give_way(TemplateUnfit(name, "it is of an older image"))
        except TemplateUnfit as err:
            logger.warning("%s; it is used as it is", err)
            return found

    async def _give_way(self, unfit: TemplateUnfit) -> Recipe:
        """Remove a template that can be made anew, and return how. Its pool becomes empty."""
        from .controller import Controller
        from .pool import Pools

        found = self.find(unfit.name)
        recipe = found.recipe
        if recipe is None or recipe.spec.image is None:
            raise unfit
        if (self._home.pools / unfit.name).exists():
            async with Controller(self._home) as controller:
                await Pools(controller).drain(unfit.name)
        try:
            await self._remove(found)
        except TemplateInUse as err:
            users = ", ".join(err.users[:5])
            hint = f"it is made anew once these are deleted: {users}"
            raise TemplateUnfit(unfit.name, unfit.why, hint=hint) from err
        return recipe

    async def _create(
        self, name: str, recipe: Recipe, timeout_s: float, progress: Progress | None
    ) -> Template:
        """Create it by booting; the caller holds the name's lock."""
        from .spec import resolved

        async def begin(machine: Machine, new: Path) -> None:
            await machine.start(timeout_s=timeout_s, progress=progress)

        spec = await asyncio.to_thread(resolved, recipe.spec)
        return await self._keep(name, spec, begin, recipe, recipe, timeout_s)

    async def _keep(
        self,
        name: str,
        spec: MachineSpec,
        begin: Begin,
        how: Recipe,
        again: Recipe | None,
        timeout_s: float | None = None,
    ) -> Template:
        """Begin a machine, warm it up, keep it; `again` is how that could be done again."""
        await self._sweep()
        self._clear(name)
        self._root.mkdir(mode=0o700, exist_ok=True)
        _check_room(self._root, name, spec)
        new = self._root / f"{_NEW}{os.getpid()}-{os.urandom(4).hex()}"
        new.mkdir(mode=0o700)
        try:
            accel = await self._fill(new, replace(spec, name="t"), begin, how.warm, timeout_s)
            record = {"on_clone": how.on_clone, "recipe": _recipe_json(again)}
            await self._name(new, name, replace(spec, name=name, accel=accel), record)
        except (HostctlError, OSError) as err:
            if _free_bytes(self._root) >= FULL_BYTES:
                raise
            text = f"template {name!r} was not made: {self._root} is full; {err}"
            raise BackendError(text, hint="free some space there") from err
        finally:
            remove_tree(new)
        return self.find(name)

    def _clear(self, name: str) -> None:
        """Make sure that the name is free; what a killed hostctl left of it has no record."""
        folder = self._root / name
        if (folder / RECORD).exists():
            raise TemplateExists(name)
        remove_tree(folder)

    async def _name(self, new: Path, name: str, spec: MachineSpec, record: dict[str, Any]) -> None:
        """Give the new folder its name; without its record it is still no template."""
        try:
            os.rename(new, self._root / name)
        except OSError as err:
            raise TemplateExists(name) from err
        try:
            await self._finish(name, spec, record)
        except BaseException:
            remove_tree(self._root / name)
            raise

    async def delete(self, name: str) -> None:
        """Remove a template.

        Raises:
            TemplateInUse: a machine that came of it is still there; its disks, and its RAM while it
                runs, lie in the template; or it has a pool.
        """
        found = self.find(name)
        if (self._home.pools / name / "pool.json").exists():
            raise TemplateInUse(name, ["its pool"], hint=f"hostctl pool delete {name}")
        await self._remove(found)

    async def _remove(self, found: Template) -> None:
        name = found.name
        if users := self.users(found):
            raise TemplateInUse(name, users)
        gone = self._root / f"{_GONE}{os.getpid()}-{os.urandom(4).hex()}"
        found.folder.rename(gone)
        await asyncio.to_thread(remove_tree, gone)

    def users(self, template: Template) -> tuple[str, ...]:
        """Return the names of the machines that came of it."""
        options = {name: read_options(self._home.files(name)) for name in self._home.names()}
        mine = str(template.folder)
        return tuple(name for name, found in options.items() if found.get("template") == mine)

    async def _fill(
        self,
        new: Path,
        spec: MachineSpec,
        begin: Begin,
        warm: Sequence[str],
        timeout_s: float | None,
    ) -> str:
        """Begin in a home of its own, inside the new folder, and save; return the accelerator."""
        from .controller import Controller

        home = self._nursery(new)
        async with Controller(home) as controller:
            machine = await controller._make(Record("qemu", spec, {"ram": str(new / RAM)}))
            try:
                await begin(machine, new)
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

    async def _finish(self, name: str, spec: MachineSpec, record: dict[str, Any]) -> None:
        """Make the clones' overlays, which hold the final path of their bases; then it is there."""
        from .backends.qemu.snapshot import prepare_disks

        folder = self._root / name
        prepared = folder / PREPARED
        prepared.mkdir(mode=0o700)
        bases = [folder / "disks" / f"disk{n}.qcow2" for n in range(len(spec.disks))]
        await prepare_disks(bases, prepared)
        free = frozenset() if record["recipe"] else _FREE
        record = {
            **record,
            "version": VERSION,
            "spec": spec.to_json(),
            "created_s": time.time(),
            "fits": {key: value for key, value in fitting(spec).items() if key not in free},
            "ram": _size(folder / RAM),
            "digest": _digest(folder),
            "made_of": made_of(spec),
        }
        await asyncio.to_thread(write_json, folder / RECORD, record)

    @contextlib.asynccontextmanager
    async def _locked(self, name: str, timeout_s: float) -> AsyncIterator[None]:
        """Keep others from making a template of that name meanwhile."""
        lock = self._home.runtime / f".t-{name}.lock"
        async with locked(lock, f"template {name!r}", "create", timeout_s):
            yield

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
            async with Controller(self._home) as controller:
                await forget_snapshot(controller, left)
            remove_tree(home.runtime)
            remove_tree(left)


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


def _check_room(folder: Path, name: str, spec: MachineSpec) -> None:
    """Raise if the RAM might not fit the disk: QEMU would be killed by the page it cannot have."""
    free_mib = _free_bytes(folder) >> 20
    if free_mib < spec.memory_mib:
        raise BackendError(
            f"template {name!r} may need {spec.memory_mib} MiB in {folder} for its RAM, "
            f"and {free_mib} MiB are free",
            hint="free some, or set HOSTCTL_STATE_DIR to a larger file system",
        )


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _build(image: str, progress: Progress | None) -> None:
    """Make sure that an image with a recipe is there, and up to date."""
    import hostctl_images

    if image in hostctl_images.recipes():
        hostctl_images.build(image, progress=progress)


def _is_alive(pid: str) -> bool:
    return pid.isdecimal() and Path("/proc", pid).exists()


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
