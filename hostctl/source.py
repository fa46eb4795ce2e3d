"""A machine that runs, as what a template is made of: its present moment goes into a copy.

Its RAM is QEMU's own, and no file that clones could map. So the moment is saved as a snapshot,
which halts the guest for a fraction of a second, and loaded into a second QEMU whose RAM is the
template's file. The snapshot is gone afterwards; a note in the template's unfinished folder says
which one it is, for whoever cleans up after a kill.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .backends.qemu.backend import QemuBackend
from .errors import HostctlError, Unsupported
from .lifecycle import guard
from .state import read_json, write_json

if TYPE_CHECKING:
    from .controller import Controller
    from .machine import Machine

__all__ = ["Source", "forget_snapshot"]

NOTE: Final = "source.json"
COPY_S: Final = 600.0  # a large disk on a slow one


class Source:
    """The machine. It goes on as before, whatever fails."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        backend = machine._backend
        if not isinstance(backend, QemuBackend):
            raise Unsupported(
                f"no template can be made of machine {machine.name!r}: it does not run on a QEMU "
                "of hostctl's own",
                "templates",
                hint="hostctl template create --image or --disk makes one by booting",
            )
        self._backend = backend
        self.spec = machine.spec

    async def accel(self) -> str:
        """Return what it runs on, and clones will. Raises WrongState if it does not run."""
        guard(self._machine.name, await self._machine.state(), "snapshot")
        return (await self._backend.describe()).accel or self.spec.accel

    async def pour(self, copy: Machine, new: Path) -> None:
        """Begin `copy`, which never ran, at the present moment, and let it go on; note it in `new`.

        The copy's disks are whole: they lie on what ours lie on, unless that is a template.
        """
        into = copy._backend
        assert isinstance(into, QemuBackend)
        tag = f"template-{os.urandom(4).hex()}"
        async with self._machine.lock.held("make a template"):
            guard(self._machine.name, await self._backend.settle(), "snapshot")
            write_json(new / NOTE, {"machine": self._machine.name, "tag": tag})
            try:
                await self._backend.save_snapshot(tag, COPY_S)
                await self._backend.copy_moment(tag, copy._files, COPY_S)
            finally:
                with contextlib.suppress(HostctlError):  # it was not saved, or the machine is gone
                    await self._backend.delete_snapshot(tag, COPY_S)
        await into.launch(frozen=True)
        await into.load_ram(tag, COPY_S)
        await into.resume()


async def forget_snapshot(controller: Controller, new: Path) -> None:
    """Delete the snapshot that a killed `pour` left, if it did."""
    note: dict[str, Any] | None = read_json(new / NOTE)
    if note is not None:
        with contextlib.suppress(HostctlError):
            await controller.machine(note["machine"]).delete_snapshot(note["tag"])
