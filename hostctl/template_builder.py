"""The making of templates: a machine is begun, warmed up, and its moment kept.

A template appears by one rename, so it is whole or not there. Until then it is a folder of ours
with a home in it, in which its machine runs; what a killed hostctl left of such, the next one to
make any template removes. What has to be made anew, and can be, is: others who want it wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .backends.interface import MachineSpec, Progress, check_name
from .backends.qemu.backend import QemuBackend
from .backends.qemu.moment import PREPARED, RAM, STATE
from .controller import Controller
from .errors import (
    BackendError,
    HostctlError,
    TemplateExists,
    TemplateInUse,
    TemplateNotFound,
    TemplateUnfit,
)
from .onclone import check_script
from .pool import Pools
from .record import Record
from .source import Source, forget_snapshot
from .spec import resolved
from .state import Home, locked, remove_tree
from .template import GONE, RECORD, Recipe, Template, Templates, write_record

if TYPE_CHECKING:
    from .machine import Machine

    Begin = Callable[[Machine, Path], Awaitable[None]]  # the second is the template's new folder

__all__ = ["TemplateBuilder"]

logger = logging.getLogger(__name__)

QUEUE_S: Final = 600.0  # whoever is before us may have to build the image, and to boot it
FULL_BYTES: Final = 1 << 20  # with less left, what failed, failed for that
_NEW: Final = ".new-"


class TemplateBuilder:
    """Makes the templates of a home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._root = home.templates
        self._templates = Templates(home)

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
            if first is None or not self._templates.find(name).is_old:
                return self._templates.fitting(name)
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
            found = self._templates.fitting(name)
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
        found = self._templates.find(unfit.name)
        recipe = found.recipe
        if recipe is None or recipe.spec.image is None:
            raise unfit
        if (self._home.pools / unfit.name).exists():
            async with Controller(self._home) as controller:
                await Pools(controller).drain(unfit.name)
        try:
            await self._templates.remove(found)
        except TemplateInUse as err:
            users = ", ".join(err.users[:5])
            hint = f"it is made anew once these are deleted: {users}"
            raise TemplateUnfit(unfit.name, unfit.why, hint=hint) from err
        return recipe

    async def _create(
        self, name: str, recipe: Recipe, timeout_s: float, progress: Progress | None
    ) -> Template:
        """Create it by booting; the caller holds the name's lock."""

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
            await self._name(new, replace(spec, name=name, accel=accel), how.on_clone, again)
        except (HostctlError, OSError) as err:
            if _free_bytes(self._root) >= FULL_BYTES:
                raise
            text = f"template {name!r} was not made: {self._root} is full; {err}"
            raise BackendError(text, hint="free some space there") from err
        finally:
            remove_tree(new)
        return self._templates.find(name)

    def _clear(self, name: str) -> None:
        """Make sure that the name is free; what a killed hostctl left of it has no record."""
        folder = self._root / name
        if (folder / RECORD).exists():
            raise TemplateExists(name)
        remove_tree(folder)

    async def _name(
        self, new: Path, spec: MachineSpec, on_clone: str | None, again: Recipe | None
    ) -> None:
        """Give the new folder its spec's name; without its record it is still no template."""
        folder = self._root / spec.name
        try:
            os.rename(new, folder)
        except OSError as err:
            raise TemplateExists(spec.name) from err
        try:
            await _prepare_disks(folder, len(spec.disks))
            await asyncio.to_thread(write_record, folder, spec, on_clone, again)
        except BaseException:
            remove_tree(folder)
            raise

    async def _fill(
        self,
        new: Path,
        spec: MachineSpec,
        begin: Begin,
        warm: Sequence[str],
        timeout_s: float | None,
    ) -> str:
        """Begin in a home of its own, inside the new folder, and save; return the accelerator."""
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
        for entry in os.listdir(self._root) if self._root.exists() else ():
            left = self._root / entry
            if not entry.startswith((_NEW, GONE)) or _is_alive(entry.split("-")[1]):
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


async def _prepare_disks(folder: Path, count: int) -> None:
    """Make the clones' overlays, which hold the final path of their bases."""
    from .backends.qemu.disks import prepare_disks

    prepared = folder / PREPARED
    prepared.mkdir(mode=0o700)
    await prepare_disks([folder / "disks" / f"disk{n}.qcow2" for n in range(count)], prepared)


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
