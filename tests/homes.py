"""Homes of machines that tests make: where they lie, what boots in them, who tidies up."""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

from hostctl.backends.interface import MachineSpec
from hostctl.controller import BACKEND, Controller
from hostctl.machine import Machine
from hostctl.state import Home

__all__ = ["booting", "emptied", "environment", "remove_machines", "short_home"]


@contextlib.contextmanager
def short_home(prefix: str) -> Iterator[Home]:
    """Yield a home in a folder of its own, which is removed afterwards; its machines are not."""
    # Not tmp_path: its long name would not leave room for the sockets' paths.
    with tempfile.TemporaryDirectory(prefix=prefix) as root:
        yield Home(Path(root) / "s", Path(root) / "r")


def environment(home: Home) -> dict[str, str]:
    """Return the environment of a hostctl that uses this home, and our sources."""
    return os.environ | {
        "HOSTCTL_STATE_DIR": str(home.state),
        "HOSTCTL_RUNTIME_DIR": str(home.runtime),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


@contextlib.asynccontextmanager
async def booting(
    home: Home, spec: MachineSpec, *, backend: str = BACKEND, connect: str | None = None
) -> AsyncIterator[Machine]:
    """Build the spec's image and boot a machine of it; it stays, unless that or the body fails."""
    from hostctl_images import build

    assert spec.image
    await asyncio.to_thread(build, spec.image)
    async with Controller(home) as controller:
        machine = await controller.create(spec, backend=backend, connect=connect)
        try:
            await machine.start()
            yield machine
        except BaseException:
            await machine.delete(force=True)
            raise


@contextlib.asynccontextmanager
async def emptied(home: Home, *, keep: Collection[str] | None = None) -> AsyncIterator[Controller]:
    """Yield a controller; at the end its machines are deleted.

    With `keep` so are the templates, but for these; they are left alone without it.
    """
    async with Controller(home) as controller:
        yield controller
        for machine in controller.machines():
            await machine.delete(force=True)
        if keep is not None:
            for template in controller.templates():
                if template.name not in keep:
                    await controller.delete_template(template.name)


async def remove_machines(home: Home) -> None:
    """Delete all machines of a home, also those that wait in a pool."""
    async with Controller(home) as controller:
        for name in (*home.names(), *home.waiting()):
            await controller.machine(name).delete(force=True)
