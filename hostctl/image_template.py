"""The template of an image: made on first use, shared by all who ask, made anew when it is old.

Those who ask at once, from any process, wait for the first of them. Templates of somebody's own,
under the same name, are used as they are, and never replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import __version__
from .backends.interface import MachineSpec, Progress
from .errors import TemplateInUse, TemplateNotFound, TemplateUnfit
from .state import Home, locked
from .template import Template, Templates

__all__ = ["name_of", "ready"]

logger = logging.getLogger(__name__)

QUEUE_S: Final = 600.0  # whoever is before us may have to build the image, and to boot it

Resolve = Callable[[MachineSpec], MachineSpec]


def name_of(spec: MachineSpec) -> str:
    """Return what its template is called: "tiny", "tiny-512", "tiny-512-2cpus"."""
    plain = MachineSpec("any", image=spec.image)
    memory = "" if spec.memory_mib == plain.memory_mib else f"-{spec.memory_mib}"
    cpus = "" if spec.cpus == plain.cpus else f"-{spec.cpus}cpus"
    return f"{spec.image}{memory}{cpus}"


async def ready(
    home: Home,
    spec: MachineSpec,
    resolve: Resolve,
    *,
    timeout_s: float,
    progress: Progress | None = None,
) -> Template:
    """Return the template of `spec`, which names an image; see Controller.template_of."""
    templates, name = Templates(home), name_of(spec)
    if (found := _usable(templates, name)) is not None:
        return found
    doing = f"make template {name}"
    async with locked(home.state / "template.lock", "the making of templates", doing, QUEUE_S):
        if (found := _usable(templates, name)) is not None:  # another one was quicker
            return found
        if (old := await _cleared(templates, name)) is not None:
            return old
        return await _make(templates, name, spec, resolve, timeout_s, progress)


def _usable(templates: Templates, name: str) -> Template | None:
    """Return the template if it is there and good; None if it has to be made.

    Raises:
        TemplateUnfit: it is not, and only its maker knows how to make it.
    """
    try:
        found = templates.find(name)
        found.check()
    except TemplateNotFound:
        return None
    except TemplateUnfit:
        if templates.find(name).made_of is None:
            raise
        return None
    return found if found.made_of in (None, _made_of(found.spec)) else None


async def _cleared(templates: Templates, name: str) -> Template | None:
    """Remove what is old; return it if it works and machines need it."""
    try:
        await templates.delete(name)
    except TemplateNotFound:
        pass
    except TemplateInUse as err:
        old = templates.find(name)
        try:
            old.check()
        except TemplateUnfit as unfit:
            logger.warning("%s", unfit)
            raise err from unfit
        logger.warning("%s, and is of an older image: used as it is", err)
        return old
    return None


async def _make(
    templates: Templates,
    name: str,
    spec: MachineSpec,
    resolve: Resolve,
    timeout_s: float,
    progress: Progress | None,
) -> Template:
    import hostctl_images

    assert spec.image is not None
    if progress is not None:
        progress(f"making the template {name} of the image {spec.image}, once")
    if spec.image in hostctl_images.recipes():  # any other name is for `resolve` to refuse
        await asyncio.to_thread(hostctl_images.build, spec.image, progress=progress)
    whole = resolve(spec)
    return await templates.create(name, whole, timeout_s=timeout_s, made_of=_made_of(whole))


def _made_of(spec: MachineSpec) -> Mapping[str, Any]:
    """Return what tells an image from a later one of that name.

    By files, for its digest takes longer than a clone; by our version, for a new one may bring a
    new agent, of which the image is to be built first.
    """
    files = [path.resolve() for path in (spec.kernel, spec.initrd) if path and path.exists()]
    stats = [(path, path.stat()) for path in files]
    return {
        "hostctl": __version__,
        "files": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats],
    }
