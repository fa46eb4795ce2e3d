"""Group: several machines, with the verbs of one. Comes from `Controller.select`.

Owns what a verb means for many: one source for all, a folder each for what comes back. The verbs
themselves are Machine's, with its signatures; how many at once, and in what order, is fanout.py's.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Concatenate, ParamSpec, TypeVar

from .errors import ConfigError
from .fanout import PARALLEL, Fanout
from .localfile import SharedSource
from .machine import Machine

if TYPE_CHECKING:
    from hostctl_channels.interface import FileInfo

    from .guest import LocalPath

__all__ = ["Group", "landing", "own_folder"]

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    method: Callable[Concatenate[Machine, P], Awaitable[T]],
) -> Callable[Concatenate[Group, P], Fanout[T]]:
    @functools.wraps(method)
    def verb(group: Group, /, *args: P.args, **kwargs: P.kwargs) -> Fanout[T]:
        return group.each(lambda machine: method(machine, *args, **kwargs))

    one = inspect.signature(method)  # what help() shows
    whole = one.replace(return_annotation=f"Fanout[{one.return_annotation}]")
    verb.__signature__ = whole  # type: ignore[attr-defined]  # inspect's convention
    return verb


class Group:
    """Machines that are told the same thing; each answers for itself.

    A verb returns a Fanout: `await` it for a mapping by name, or `async for` over it to get each
    outcome as it arrives. Nothing begins before.
    """

    def __init__(
        self, machines: Iterable[Machine], *, parallel: int | None = None, fail_fast: bool = False
    ) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self.parallel = PARALLEL if parallel is None else parallel
        self._fail_fast = fail_fast

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._machines.values())

    def __len__(self) -> int:
        return len(self._machines)

    def __repr__(self) -> str:
        return f"<Group of {len(self)}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its machines, in the order in which they were selected."""
        return tuple(self._machines)

    def each(self, do: Callable[[Machine], Awaitable[T]]) -> Fanout[T]:
        """Do anything with every machine, not more than `parallel` at once."""
        return self._fan_out(do)

    state = _verb(Machine.state)
    start = _verb(Machine.start)
    stop = _verb(Machine.stop)
    pause = _verb(Machine.pause)
    resume = _verb(Machine.resume)
    reset = _verb(Machine.reset)
    delete = _verb(Machine.delete)
    wait = _verb(Machine.wait)
    save = _verb(Machine.save)
    stats = _verb(Machine.stats)
    screenshot = _verb(Machine.screenshot)
    describe = _verb(Machine.describe)
    change_tags = _verb(Machine.change_tags)

    channels = _verb(Machine.channels)
    attach = _verb(Machine.attach)
    detach = _verb(Machine.detach)
    fetch_console_log = _verb(Machine.fetch_console_log)

    save_snapshot = _verb(Machine.save_snapshot)
    list_snapshots = _verb(Machine.list_snapshots)
    restore_snapshot = _verb(Machine.restore_snapshot)
    delete_snapshot = _verb(Machine.delete_snapshot)

    exec = _verb(Machine.exec)
    shell = _verb(Machine.shell)
    spawn = _verb(Machine.spawn)
    jobs = _verb(Machine.jobs)
    read = _verb(Machine.read)
    ping = _verb(Machine.ping)
    glob = _verb(Machine.glob)
    kind_of = _verb(Machine.kind_of)
    put_tree = _verb(Machine.put_tree)
    sync_to = _verb(Machine.sync_to)

    def put(
        self,
        source: LocalPath | BinaryIO | bytes,
        guest_path: str | bytes,
        *,
        mode: int | None = None,
        mtime_s: float | None = None,
        owner: str | None = None,
        verify: str | None = None,
    ) -> Fanout[FileInfo]:
        """Write `source` to `guest_path` in every machine. It is opened, and a pipe read, once."""
        shared = SharedSource(source)

        async def put(machine: Machine) -> FileInfo:
            return await machine.put(
                shared.view(), guest_path, mode=mode, mtime_s=mtime_s, owner=owner, verify=verify
            )

        return self._fan_out(put, shared)

    def get(
        self,
        guest_path: str | bytes,
        folder: LocalPath,
        *,
        stat: bool = False,
        verify: str | None = None,
        max_bytes: int | None = None,
    ) -> Fanout[FileInfo]:
        """Read a file of every machine into `folder`/NAME/, under its own name.

        Raises:
            ConfigError: `guest_path` ends in no name.
        """
        landing(Path(folder), "", guest_path)

        async def get(machine: Machine) -> FileInfo:
            with own_folder(landing(Path(folder), machine.name, guest_path)) as target:
                return await machine.get(
                    guest_path, target, stat=stat, verify=verify, max_bytes=max_bytes
                )

        return self._fan_out(get)

    def _fan_out(
        self,
        do: Callable[[Machine], Awaitable[T]],
        holding: contextlib.AbstractContextManager[object] | None = None,
    ) -> Fanout[T]:
        machines = self._machines
        return Fanout(
            self.names,
            lambda name: do(machines[name]),
            parallel=self.parallel,
            fail_fast=self._fail_fast,
            holding=holding,
        )


def landing(folder: Path, machine: str, guest_path: str | bytes) -> Path:
    """Return where a file of `machine` lands under `folder`.

    Raises:
        ConfigError: its path ends in no name.
    """
    name = os.path.basename(os.fsdecode(guest_path))
    if name in ("", ".", ".."):
        raise ConfigError(f"{os.fsdecode(guest_path)!r} names no file")
    return folder / machine / name


@contextlib.contextmanager
def own_folder(target: Path) -> Iterator[Path]:
    """Make the folder of `target`; if the body fails, remove it again unless something is in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield target
    except BaseException:
        with contextlib.suppress(OSError):
            target.parent.rmdir()
        raise
