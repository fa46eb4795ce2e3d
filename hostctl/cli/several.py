"""What every command does with several machines: choose them, do it to each, tell, sum up.

A single plain name is no group: its error is the command's own, and nothing is summed up. For a
group each machine's end is one line, and the exit code is that of the first that failed, in the
order in which they were chosen.
"""

import argparse
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from hostctl.controller import Controller

from . import render, units
from .exits import Exit, exit_for

T = TypeVar("T")
Event = dict[str, Any]
_NAMED: Final = 10  # failures that a summary names


class Chosen(NamedTuple):
    """The names to work on; `is_group` unless one plain name was typed."""

    names: tuple[str, ...]
    is_group: bool


class Board:
    """Where events go: JSON on stdout, or lines for people on stderr. exec has one of its own."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    async def tell(self, event: Event, text: str, *, is_bad: bool = False) -> None:
        """Tell an event; as text, good news only to whoever watches."""
        if self.json:
            await self.put(event)
        if is_bad:
            render.say(text)
        elif not self.json:
            render.talk(text)

    async def tell_done(
        self, name: str, done: str, duration_s: float, *, tag: str | None = None
    ) -> None:
        """Tell that what was asked for is done; `tag` is the snapshot's, if it was about one."""
        what = {} if tag is None else {"tag": tag}
        event = {"event": "done", "name": name, **what, "done": done}
        text = f"{name}: {done}" if tag is None else f"{name}: snapshot {tag} {done}"
        took = units.show_duration(duration_s)
        await self.tell({**event, "duration_s": round(duration_s, 3)}, f"{text} ({took})")

    async def put(self, event: Event) -> None:
        """Write one line of JSON."""
        render.json_out(event)


class Quiet(Board):
    """Tells what failed, and nothing else: for what is asked for its output."""

    def __init__(self, board: Board | None = None) -> None:
        super().__init__(json=board is not None and board.json)
        self._board = board

    async def tell(self, event: Event, text: str, *, is_bad: bool = False) -> None:
        """See Board."""
        if is_bad or self.json:
            await super().tell(event, text, is_bad=is_bad)

    async def put(self, event: Event) -> None:
        """See Board."""
        if self._board is not None:
            await self._board.put(event)


def is_group(words: Sequence[str]) -> bool:
    """Tell whether words may mean several machines: anything but one plain name."""
    return len(words) != 1 or any(char in words[0] for char in "@,*?[")


def choose(controller: Controller, words: Sequence[str], *, allow_empty: bool) -> Chosen:
    """Return the machines that were typed.

    Raises:
        NothingMatches: a pattern or a tag means none; fine with `allow_empty`.
        ConfigError: a word could mean none.
    """
    if not is_group(words):
        return Chosen(tuple(words), False)
    return Chosen(controller.names(*words, allow_empty=allow_empty), True)


def chosen(controller: Controller, args: argparse.Namespace) -> Chosen:
    """Return the machines of `args.names`, or of `args.name`."""
    words = args.names if "names" in args else [args.name]
    return choose(controller, words, allow_empty=args.allow_empty)


def show(chosen: Chosen, name: str, text: str) -> None:
    """Print what was asked about a machine; of a group each under its name."""
    print(f"{name}:\n{text}\n" if chosen.is_group else text)


def show_json(chosen: Chosen, name: str, key: str, value: object) -> None:
    """Print it as JSON; of a group each as an event which has it under `key`."""
    event = {"event": key, "name": name, key: value}
    render.json_out(event if chosen.is_group else value)


async def each(
    args: argparse.Namespace,
    chosen: Chosen,
    act: Callable[[str], Awaitable[T]],
    tell: Callable[[str, T, float], Awaitable[object]],
    *,
    code: Callable[[T], int] = lambda _: Exit.OK,
    board: Board | None = None,
    what: str = "machine",
) -> int:
    """Do `act` to each name, `tell` what came of it and after how many seconds; return the code."""
    if not chosen.is_group:
        (name,) = chosen.names
        began = time.monotonic()
        value = await act(name)
        await tell(name, value, time.monotonic() - began)
        return code(value)
    return await _Run(args, board or Board(json=args.json), tell, code).over(chosen, act, what)


class _Run:
    """One fan-out of a command, and the count of its ends."""

    def __init__(
        self,
        args: argparse.Namespace,
        board: Board,
        tell: Callable[[str, T, float], Awaitable[object]],
        code: Callable[[T], int],
    ) -> None:
        self._args = args
        self._board = board
        self._tell: Callable[[str, Any, float], Awaitable[object]] = tell
        self._code: Callable[[Any], int] = code
        self._codes: dict[str, int] = {}
        self._skipped: list[str] = []
        self._began = time.monotonic()

    async def over(self, chosen: Chosen, act: Callable[[str], Awaitable[object]], what: str) -> int:
        from hostctl.fanout import Fanout

        _make_room(len(chosen.names))
        work = Fanout(
            chosen.names,
            act,
            parallel=self._args.parallel,
            fail_fast=self._args.fail_fast,
            is_failure=lambda value: self._code(value) != Exit.OK,
        )
        async for outcome in work:
            if outcome.is_skipped:
                await self._skip(outcome.name, str(outcome.error))
            elif outcome.error is not None:
                await self._fail(outcome.name, outcome.error)
            else:
                self._codes[outcome.name] = self._code(outcome.value)
                await self._tell(outcome.name, outcome.value, outcome.duration_s)
        codes = (self._codes.get(name, Exit.OK) for name in chosen.names)
        code = next((code for code in codes if code), Exit.OK)
        await self._sum_up(chosen, code, what)
        return code

    async def _fail(self, name: str, error: Exception) -> None:
        code = self._codes[name] = exit_for(render.leaf(error), self._args.label)
        if self._args.verbose > 1:
            import traceback

            traceback.print_exception(error)
        text = render.error_line(error)
        event = {"event": "failed", "name": name, "code": int(code), "error": text}
        await self._board.tell(
            event, text if repr(name) in text else f"{name}: {text}", is_bad=True
        )

    async def _skip(self, name: str, why: str) -> None:
        self._skipped.append(name)
        event = {"event": "skipped", "name": name, "reason": why}
        await self._board.tell(event, f"{name}: {why}")

    async def _sum_up(self, chosen: Chosen, code: int, what: str) -> None:
        failed = [name for name in chosen.names if self._codes.get(name)]
        counts = {
            f"{what}s": len(chosen.names),
            "ok": len(self._codes) - len(failed),
            "failed": len(failed),
            "skipped": len(self._skipped),
        }
        duration_s = time.monotonic() - self._began
        event = {
            "event": "summary",
            **counts,
            "code": int(code),
            "duration_s": round(duration_s, 3),
        }
        text = _summary(counts, failed, what) + f" ({units.show_duration(duration_s)})"
        await self._board.tell(event, text, is_bad=bool(failed or self._skipped))


def _make_room(machines: int) -> None:
    """Let us have enough descriptors: a machine that was just spoken to keeps six for a second."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 256 + 8 * machines) if hard != resource.RLIM_INFINITY else 256 + 8 * machines
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _summary(counts: dict[str, int], failed: list[str], what: str) -> str:
    total = counts[f"{what}s"]
    text = f"{total} {what}{'' if total == 1 else 's'}: {counts['ok']} ok"
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        text += f", {len(failed)} failed: {', '.join(failed[:_NAMED])}{more}"
    return text + (f", {counts['skipped']} skipped" if counts["skipped"] else "")
