"""Detached commands: `exec --detach`, `jobs`, `logs`, `wait NAME/JOB`, `signal`, `forget`."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime

from hostctl.controller import Controller
from hostctl.errors import NothingMatches
from hostctl.fanout import Fanout
from hostctl.job import Job, JobStatus
from hostctl.lifecycle import MachineState
from hostctl_channels.interface import ExitStatus

from . import opening, render, several, units
from .exec import Taps, exit_code
from .exits import UsageError
from .lines import Printer, Voice


def start(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    """Start a command in each machine, and print where it is found again."""
    return opening.run(_start(args, argv, env))


def jobs(args: argparse.Namespace) -> int:
    """List the jobs of machines."""
    return opening.run(_list(args))


def logs(args: argparse.Namespace) -> int:
    """Print what jobs have printed, each stream on ours."""
    return opening.run(_logs(args))


def wait(args: argparse.Namespace) -> int:
    """Wait for jobs; what fails here fails as exec does, out of the way of a command's status."""
    args.label = "exec"
    return opening.run(_wait(args))


def signal(args: argparse.Namespace) -> int:
    """Send a signal to jobs."""
    return opening.run(_signal(args))


def forget(args: argparse.Namespace) -> int:
    """Remove what is kept of jobs."""
    return opening.run(_forget(args))


def parse(text: str) -> tuple[str, str]:
    """Read NAME/JOB.

    Raises:
        UsageError: it is something else.
    """
    name, slash, job = text.partition("/")
    if not (name and slash and job):
        raise UsageError(f'"{text}" is not a job; write NAME/JOB, as "hostctl jobs" lists them')
    return name, job


def _find(controller: Controller, text: str) -> Job:
    name, job = parse(text)
    return controller.machine(name).job(job)


async def _chosen(
    controller: Controller, args: argparse.Namespace, words: list[str]
) -> several.Chosen:
    """Return the jobs that were typed. Where a name or an id is a pattern, the guests are asked."""
    found: dict[str, None] = {}
    for word in words:
        name, id = parse(word)
        if several.is_group([name]) or several.is_group([id]):
            jobs = await _matching(controller, name, id)
            if not jobs and not args.allow_empty:
                raise NothingMatches(word, "job")
            found.update(dict.fromkeys(jobs))
        else:
            found[word] = None
    is_plain = len(words) == 1 and tuple(found) == tuple(words)
    return several.Chosen(tuple(found), not is_plain)


async def _matching(controller: Controller, name: str, id: str) -> list[str]:
    from hostctl.pattern import parse

    wanted = parse([id])
    if any(selector.is_tag for selector in wanted):
        raise UsageError(f'"{name}/{id}": jobs have no tags; write @TAG/* for those of machines')
    names = await _awake(controller, controller.names(name), is_group=several.is_group([name]))
    listed = await Fanout(names, lambda name: controller.machine(name).jobs())
    return [
        f"{machine}/{job.id}"
        for machine, outcome in listed.check().items()
        for job in outcome.value
        if any(selector.matches(job.id) for selector in wanted)
    ]


async def _awake(
    controller: Controller, names: tuple[str, ...], *, is_group: bool
) -> tuple[str, ...]:
    """Return who can be asked: of a group those that run; of one that was named, itself."""
    if not is_group:
        return names
    states = await asyncio.gather(*(controller.machine(name).state() for name in names))
    found = zip(names, states, strict=True)
    return tuple(name for name, state in found if state is MachineState.RUNNING)


async def _start(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    stdin = await asyncio.to_thread(sys.stdin.buffer.read) if args.interactive else None
    async with opening.open_controller() as controller:

        async def one(name: str) -> Job:
            machine = opening.machine(controller, name, args.channel)
            machine.steal = args.steal
            return await machine.spawn(
                *argv,
                env=env or None,
                cwd=args.workdir,
                user=args.user,
                input=stdin,
                timeout_s=args.timeout_s,
                keep_bytes=args.keep,
            )

        async def tell(name: str, job: Job, _: float) -> None:
            if args.json:
                render.json_out({"event": "started", "name": name, "job": f"{name}/{job.id}"})
            else:
                print(f"{name}/{job.id}", flush=True)

        return await several.each(args, several.chosen(controller, args), one, tell)


async def _list(args: argparse.Namespace) -> int:
    rows: list[tuple[str, JobStatus]] = []
    async with opening.open_controller() as controller:
        chosen = _asked(controller, args)
        awake = await _awake(controller, chosen.names, is_group=chosen.is_group)

        async def one(name: str) -> tuple[JobStatus, ...]:
            return await controller.machine(name).jobs()

        async def tell(name: str, jobs: tuple[JobStatus, ...], _: float) -> None:
            rows.extend((name, job) for job in jobs)

        chosen = chosen._replace(names=awake)
        code = await several.each(args, chosen, one, tell, board=several.Quiet())
    rows.sort(key=lambda row: awake.index(row[0]))
    _print(args, rows)
    return code


def _asked(controller: Controller, args: argparse.Namespace) -> several.Chosen:
    if args.names:
        return several.chosen(controller, args)
    return several.Chosen(tuple(machine.name for machine in controller.machines()), True)


async def _logs(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        chosen = await _chosen(controller, args, args.jobs)
        printer = Printer(Taps().write, json=args.json, prefix=chosen.is_group)
        is_cut = args.json or chosen.is_group  # into whole lines

        async def one(text: str) -> None:
            out = Voice(printer, text) if is_cut else Taps()
            async for stream, data in _find(controller, text).follow(wait=args.follow):
                if args.only in (None, stream):
                    await out.write(stream, data)
            if isinstance(out, Voice):
                await out.close()

        return await several.each(
            args, chosen, one, _untold, board=several.Quiet(printer), what="job"
        )


async def _wait(args: argparse.Namespace) -> int:
    board = several.Board(json=args.json)
    async with opening.open_controller() as controller:
        chosen = await _chosen(controller, args, args.names)

        async def one(text: str) -> ExitStatus:
            return await _find(controller, text).wait(args.timeout_s)

        async def tell(text: str, end: ExitStatus, _: float) -> None:
            await board.tell({"event": "exit", "job": text, **asdict(end)}, f"{text}: {end}")

        return await several.each(args, chosen, one, tell, code=exit_code, board=board, what="job")


async def _signal(args: argparse.Namespace) -> int:
    name = args.signal.upper().removeprefix("SIG")
    return await _each(args, lambda job: job.signal(name), f"sent {name}")


async def _forget(args: argparse.Namespace) -> int:
    return await _each(args, lambda job: job.forget(force=args.force), "forgotten")


async def _each(args: argparse.Namespace, do: Callable[[Job], Awaitable[None]], done: str) -> int:
    board = several.Board(json=args.json)
    async with opening.open_controller() as controller:

        async def one(text: str) -> None:
            await do(_find(controller, text))

        async def tell(text: str, _: None, duration_s: float) -> None:
            await board.tell_done(text, done, duration_s)

        chosen = await _chosen(controller, args, args.jobs)
        return await several.each(args, chosen, one, tell, board=board, what="job")


async def _untold(*_: object) -> None:
    """Say nothing: what was asked for is its own answer."""


def _print(args: argparse.Namespace, rows: list[tuple[str, JobStatus]]) -> None:
    if args.json:
        render.json_out([{"name": name, **asdict(job)} for name, job in rows])
    elif args.quiet:
        print("".join(f"{name}/{job.id}\n" for name, job in rows), end="")
    else:
        print(_table(rows))


def _table(rows: list[tuple[str, JobStatus]]) -> str:
    return render.table(
        ("JOB", "STATE", "STARTED", "STDOUT", "STDERR", "COMMAND"),
        [
            (
                f"{name}/{job.id}",
                str(job.exit or job.state),
                _time(job.started_s),
                _size(job.stdout_bytes, cut=job.stdout_cut),
                _size(job.stderr_bytes, cut=job.stderr_cut),
                _short(" ".join(job.argv)),
            )
            for name, job in rows
        ],
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _time(unix_s: int | None) -> str:
    if unix_s is None:
        return "-"
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _size(size_bytes: int, *, cut: bool) -> str:
    return units.show_size(size_bytes) + (", cut" if cut else "")
