"""The one machine of a run: hostctl's own, with three further ports, and the peers that serve them.

The peers get in the way any file gets in: by hostctl. So the guest is the shipped image, unchanged.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.machine import Machine
from hostctl_channels.ports import GUEST_AGENT

__all__ = [
    "BULK",
    "ECHO",
    "FOLDER",
    "NAME",
    "QGA",
    "bring_guest_agent",
    "bring_qga",
    "bring_rawline",
    "running",
]

NAME: Final = "bench"
FOLDER: Final = "/run/bench"  # a tmpfs of its own in the guest
ECHO, BULK, QGA = "bench.echo", "bench.bulk", "bench.qga"
_FIRST: Final = 20  # port number: above hostctl's own
_COMPILER_HINT: Final = "apt-get install gcc libc6-dev"
_MEMORY_MIB: Final = 2560  # a file of 1 GiB in tmpfs, and the one it replaces half written


@asynccontextmanager
async def running(
    controller: Controller, sockets: Path, image: str, accel: str
) -> AsyncIterator[Machine]:
    """Run a fresh machine whose peers' ports are in `sockets`; remove it afterwards."""
    extra: list[str] = []
    for number, name in enumerate((ECHO, BULK, QGA), start=_FIRST):
        path = sockets / f"{name}.sock"
        extra += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        extra += ["-device", f"virtserialport,bus=vser0.0,nr={number},chardev={name},name={name}"]
    machine = await controller.create(
        MachineSpec(NAME, image=image, memory_mib=_MEMORY_MIB, accel=accel, extra_args=tuple(extra))
    )
    try:
        await machine.start()
        await machine.shell(
            f"mkdir -p {FOLDER} && mount -t tmpfs -o size=90% bench {FOLDER}", check=True
        )
        yield machine
    finally:
        await machine.delete(force=True)


async def bring_rawline(machine: Machine, workshop: Path) -> None:
    """Compile the raw peer, statically, and start it on both its ports."""
    program = workshop / "rawline"
    source = Path(__file__).with_name("rawline.c")
    compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit(f"bench: no C compiler for the raw line: {_COMPILER_HINT}")
    argv = (compiler, "-static", "-O2", "-s", "-o", str(program), str(source))
    await _run(*argv, hint=_COMPILER_HINT)
    await machine.put(program, f"{FOLDER}/rawline", mode=0o755)
    await _serve(machine, ECHO, f"{FOLDER}/rawline echo $port")
    await _serve(machine, BULK, f"{FOLDER}/rawline bulk $port {FOLDER}/raw")


async def bring_qga(machine: Machine) -> str:
    """Start the host's QEMU guest agent in the machine, and return its version.

    Twice: one for the blocking client, one for hostctl's own channel, as a port has one client.
    """
    start = await _bring(machine)
    for port in (QGA, GUEST_AGENT):
        await _serve(machine, port, f"{start} -m virtio-serial -p $port -t {FOLDER}")
    return (await _run(_program(), "--version")).strip().removeprefix("QEMU Guest Agent ")


async def bring_guest_agent(machine: Machine) -> None:
    """Start it on its usual port alone."""
    start = await _bring(machine)
    await _serve(machine, GUEST_AGENT, f"{start} -m virtio-serial -p $port -t {FOLDER}")


async def _bring(machine: Machine) -> str:
    """Copy the agent with its libraries; return how to run it.

    It is dynamically linked; its loader is called by hand, for the guest has none.
    """
    program = _program()
    listed = await _run("ldd", program)
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
    await machine.shell(f"mkdir -p {FOLDER}/lib", check=True)
    for library in libraries:
        await machine.put(library, f"{FOLDER}/lib/{library.name}", mode=0o755)
    await machine.put(Path(program), f"{FOLDER}/qemu-ga", mode=0o755)
    loader = next(path.name for path in libraries if path.name.startswith("ld-"))
    return f"{FOLDER}/lib/{loader} --library-path {FOLDER}/lib {FOLDER}/qemu-ga"


def _program() -> str:
    program = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise SystemExit("bench: needs qemu-ga to compare with: apt-get install qemu-guest-agent")
    return program


async def _serve(machine: Machine, name: str, command: str) -> None:
    """Start a peer that outlives its command; `$port` is the device of the port `name`."""
    line = (
        "for s in /sys/class/virtio-ports/*; do read -r n <$s/name; "
        f'[ "$n" != {name} ] || port=/dev/${{s##*/}}; done; '
        f'[ "$port" ] && setsid {command} </dev/null >{FOLDER}/{name}.log 2>&1 &'
    )
    await machine.shell(line, check=True)


async def _run(*argv: str, hint: str = "") -> str:
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {argv[0]} failed: {done.stderr.strip()}\n{hint}".strip())
    return done.stdout
