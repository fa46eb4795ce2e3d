"""Detached commands: `exec --detach`, `jobs`, `logs`, `wait NAME/JOB`, `signal`, `forget`."""

import argparse
import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hostctl.controller import Controller
from hostctl.job import Job, JobStatus
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine

from . import opening, render, units
from .exec import exit_code
from .exits import Exit, UsageError


def start(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    """Start a command, and print where it is found again."""
    return opening.run(_start(args, argv, env))


def jobs(args: argparse.Namespace) -> int:
    """List the jobs of machines."""
    return opening.run(_list(args))


def logs(args: argparse.Namespace) -> int:
    """Print what a job has printed, each stream on ours."""
    return opening.run(_logs(args))


def wait(args: argparse.Namespace) -> int:
    """Wait for jobs; what fails here fails as exec does, out of the way of a command's status."""
    args.label = "exec"
    return opening.run(_wait(args))


def signal(args: argparse.Namespace) -> int:
    """Send a signal to a job."""
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


async def _start(args: argparse.Namespace, argv: tuple[bytes, ...], env: dict[bytes, bytes]) -> int:
    stdin = await asyncio.to_thread(sys.stdin.buffer.read) if args.interactive else None
    async with opening.open_controller() as controller:
        machine = opening.machine(controller, args.name, args.channel)
        machine.steal = args.steal
        job = await machine.spawn(
            *argv,
            env=env or None,
            cwd=args.workdir,
            user=args.user,
            input=stdin,
            timeout_s=args.timeout_s,
            keep_bytes=args.keep,
        )
    print(f"{args.name}/{job.id}")
    return Exit.OK


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        machines = [controller.machine(name) for name in dict.fromkeys(args.names)]
        if not machines:
            found = controller.machines()
            states = await asyncio.gather(*(machine.state() for machine in found))
            machines = [
                m for m, state in zip(found, states, strict=True) if state is MachineState.RUNNING
            ]
        listed = await asyncio.gather(*(machine.jobs() for machine in machines))
    rows = [(m, job) for m, each in zip(machines, listed, strict=True) for job in each]
    if args.json:
        render.json_out([_fields(machine, job) for machine, job in rows])
    elif args.quiet:
        print("".join(f"{machine.name}/{job.id}\n" for machine, job in rows), end="")
    else:
        print(_table(rows))
    return Exit.OK


async def _logs(args: argparse.Namespace) -> int:
    taps = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
    async with opening.open_controller() as controller:
        async for stream, data in _find(controller, args.job).follow(wait=args.follow):
            if args.only in (None, stream):
                taps[stream].write(data)
                taps[stream].flush()
    return Exit.OK


async def _wait(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        jobs = [_find(controller, text) for text in args.names]
        ends = await asyncio.gather(*(job.wait(args.timeout_s) for job in jobs))
    for text, end in zip(args.names, ends, strict=True):
        if args.json:
            render.json_out({"job": text, **asdict(end)})
        else:
            render.talk(f"{text}: {end}")
    return next((code for code in map(exit_code, ends) if code), Exit.OK)


async def _signal(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        await _find(controller, args.job).signal(args.signal.upper().removeprefix("SIG"))
    return Exit.OK


async def _forget(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        await asyncio.gather(
            *(_find(controller, text).forget(force=args.force) for text in args.jobs)
        )
    return Exit.OK


def _fields(machine: Machine, job: JobStatus) -> dict[str, Any]:
    return {"name": machine.name, **asdict(job)}


def _table(rows: list[tuple[Machine, JobStatus]]) -> str:
    return render.table(
        ("JOB", "STATE", "STARTED", "STDOUT", "STDERR", "COMMAND"),
        [
            (
                f"{machine.name}/{job.id}",
                str(job.exit or job.state),
                _time(job.started_s),
                _size(job.stdout_bytes, cut=job.stdout_cut),
                _size(job.stderr_bytes, cut=job.stderr_cut),
                _short(" ".join(job.argv)),
            )
            for machine, job in rows
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
