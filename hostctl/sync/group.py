"""The synchronous Group: verbs return all results, and `each` yields outcomes as they arrive."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..fanout import Fanout, Outcome, Results
from ..group import Group as AsyncGroup
from .job import Job
from .loop import LoopThread
from .machine import Machine

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer

    from ..guest import Env
    from ..machine import Machine as AsyncMachine

__all__ = ["Group"]

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    verb: Callable[Concatenate[AsyncGroup, P], Fanout[T]],
) -> Callable[Concatenate[Group, P], Results[T]]:
    @functools.wraps(verb)
    def at_once(group: Group, /, *args: P.args, **kwargs: P.kwargs) -> Results[T]:
        return group._finish(verb(group._async, *args, **kwargs))

    one = inspect.signature(verb)  # what help() shows
    whole = one.replace(return_annotation=one.return_annotation.replace("Fanout", "Results"))
    at_once.__signature__ = whole  # type: ignore[attr-defined]  # inspect's convention
    return at_once


class Group:
    """Machines that are told the same thing; each verb waits for all and returns a mapping."""

    def __init__(self, loop: LoopThread, group: AsyncGroup) -> None:
        self._loop = loop
        self._async = group

    def __iter__(self) -> Iterator[Machine]:
        return (Machine(self._loop, machine) for machine in self._async)

    def __len__(self) -> int:
        return len(self._async)

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def names(self) -> tuple[str, ...]:
        return self._async.names

    def each(self, do: Callable[[Machine], T]) -> Iterator[Outcome[T]]:
        """Do anything with every machine, in threads, and yield each outcome as it arrives.

        Leaving the loop early waits for those under way: a thread cannot be stopped.
        """
        import asyncio

        # Not asyncio's own threads: they are few, and what they wait for may need one too.
        with ThreadPoolExecutor(max(1, min(len(self), self._async.parallel))) as threads:

            async def one(machine: AsyncMachine) -> T:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, do, Machine(self._loop, machine))

            arriving = aiter(self._async.each(one))

            async def arrived() -> Outcome[T] | None:
                return await anext(arriving, None)

            try:
                while (outcome := self._loop.call(arrived())) is not None:
                    yield outcome
            finally:
                self._loop.call(arriving.aclose())

    state = _verb(AsyncGroup.state)
    start = _verb(AsyncGroup.start)
    stop = _verb(AsyncGroup.stop)
    pause = _verb(AsyncGroup.pause)
    resume = _verb(AsyncGroup.resume)
    reset = _verb(AsyncGroup.reset)
    delete = _verb(AsyncGroup.delete)
    wait = _verb(AsyncGroup.wait)
    save = _verb(AsyncGroup.save)
    stats = _verb(AsyncGroup.stats)
    screenshot = _verb(AsyncGroup.screenshot)
    describe = _verb(AsyncGroup.describe)
    change_tags = _verb(AsyncGroup.change_tags)

    channels = _verb(AsyncGroup.channels)
    attach = _verb(AsyncGroup.attach)
    detach = _verb(AsyncGroup.detach)
    fetch_console_log = _verb(AsyncGroup.fetch_console_log)

    save_snapshot = _verb(AsyncGroup.save_snapshot)
    list_snapshots = _verb(AsyncGroup.list_snapshots)
    restore_snapshot = _verb(AsyncGroup.restore_snapshot)
    delete_snapshot = _verb(AsyncGroup.delete_snapshot)

    exec = _verb(AsyncGroup.exec)
    shell = _verb(AsyncGroup.shell)
    jobs = _verb(AsyncGroup.jobs)
    read = _verb(AsyncGroup.read)
    ping = _verb(AsyncGroup.ping)
    glob = _verb(AsyncGroup.glob)
    kind_of = _verb(AsyncGroup.kind_of)
    put_tree = _verb(AsyncGroup.put_tree)
    sync_to = _verb(AsyncGroup.sync_to)
    put = _verb(AsyncGroup.put)
    get = _verb(AsyncGroup.get)

    def spawn(
        self,
        *argv: str | bytes,
        env: Env = None,
        cwd: str | bytes | None = None,
        user: str | None = None,
        input: Buffer | None = None,
        timeout_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> Results[Job]:
        started = self._async.spawn(
            *argv,
            env=env,
            cwd=cwd,
            user=user,
            input=input,
            timeout_s=timeout_s,
            keep_bytes=keep_bytes,
        )
        return self._finish(started).map(functools.partial(Job, self._loop))

    def _finish(self, fanout: Fanout[T]) -> Results[T]:
        async def finish() -> Results[T]:
            return await fanout

        return self._loop.call(finish())
