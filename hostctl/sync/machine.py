"""The synchronous Machine: its life, snapshots, footholds; what is done inside is guest.py's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .guest import Guest
from .loop import LoopThread

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

    from ..attach import Attachment, Look
    from ..backends.interface import Progress
    from ..backends.report import Snapshot
    from ..lifecycle import MachineState
    from ..machine import Machine as AsyncMachine
    from ..report import MachineReport
    from ..state import MachineFiles
    from ..stats import MachineStats

__all__ = ["Machine"]


class Machine(Guest):
    """A virtual machine. Comes from a Controller, which also closes it."""

    def __init__(self, loop: LoopThread, machine: AsyncMachine) -> None:
        self._loop = loop
        self._async: AsyncMachine = machine
        self.name = machine.name
        self.spec = machine.spec

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def directory(self) -> Path:
        return self._async.directory

    @property
    def console_log(self) -> Path:
        return self._async.console_log

    @property
    def console_socket(self) -> Path:
        return self._async.console_socket

    def use_channel(self, key: str) -> None:
        self._async.use_channel(key)

    @property
    def steal(self) -> bool:
        return self._async.steal

    @steal.setter
    def steal(self, steal: bool) -> None:
        self._async.steal = steal

    def fetch_console_log(self) -> Path:
        return self._loop.call(self._async.fetch_console_log())

    def console_endpoint(self) -> Endpoint:
        return self._loop.call(self._async.console_endpoint())

    def uptime_s(self) -> float | None:
        return self._async.uptime_s()

    def state(self) -> MachineState:
        return self._loop.call(self._async.state())

    def start(
        self, *, wait: bool = True, timeout_s: float = 120, progress: Progress | None = None
    ) -> None:
        self._loop.call(self._async.start(wait=wait, timeout_s=timeout_s, progress=progress))

    def stop(self, *, force: bool = False, timeout_s: float = 30) -> None:
        self._loop.call(self._async.stop(force=force, timeout_s=timeout_s))

    def save(self) -> None:
        self._loop.call(self._async.save())

    def pause(self) -> None:
        self._loop.call(self._async.pause())

    def resume(self) -> None:
        self._loop.call(self._async.resume())

    def reset(self, *, wait: bool = True, timeout_s: float = 120) -> None:
        self._loop.call(self._async.reset(wait=wait, timeout_s=timeout_s))

    def delete(self, *, force: bool = False, undefine: bool = False) -> None:
        self._loop.call(self._async.delete(force=force, undefine=undefine))

    def wait(
        self, state: MachineState | Literal["ready"] = "ready", timeout_s: float = 120
    ) -> None:
        self._loop.call(self._async.wait(state, timeout_s))

    @property
    def tags(self) -> tuple[str, ...]:
        return self._async.tags

    def change_tags(
        self, *, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> tuple[str, ...]:
        return self._loop.call(self._async.change_tags(add=add, remove=remove))

    def channels(self) -> tuple[Look, ...]:
        return self._loop.call(self._async.channels())

    def attach(
        self, *, persist: bool = False, dry_run: bool = False, progress: Progress | None = None
    ) -> Attachment:
        found = self._async.attach(persist=persist, dry_run=dry_run, progress=progress)
        return self._loop.call(found)

    @property
    def is_attached(self) -> bool:
        return self._async.is_attached

    def detach(self) -> Attachment:
        return self._loop.call(self._async.detach())

    def set_login(self, login: Path) -> None:
        self._async.set_login(login)

    def describe(self) -> MachineReport:
        return self._loop.call(self._async.describe())

    def stats(self) -> MachineStats:
        return self._loop.call(self._async.stats())

    def screenshot(self) -> bytes:
        return self._loop.call(self._async.screenshot())

    def clone_into(self, files: MachineFiles, tag: str | None) -> Mapping[str, Any]:
        return self._loop.call(self._async.clone_into(files, tag))

    def save_snapshot(self, tag: str, *, quiesce: bool = False) -> None:
        self._loop.call(self._async.save_snapshot(tag, quiesce=quiesce))

    def list_snapshots(self) -> tuple[Snapshot, ...]:
        return self._loop.call(self._async.list_snapshots())

    def restore_snapshot(self, tag: str) -> None:
        self._loop.call(self._async.restore_snapshot(tag))

    def delete_snapshot(self, tag: str) -> None:
        self._loop.call(self._async.delete_snapshot(tag))

    def close(self) -> None:
        self._loop.call(self._async.close())
