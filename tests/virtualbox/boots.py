"""Machines of hostctl on the lab's VirtualBox that boot a boot sector: up in half a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.backends.virtualbox.backend import VirtualBoxBackend
from hostctl.controller import Controller
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine

from ..bootsector import COUNTER, FIRST, LAST, boot_disk
from .laboratory import Lab

__all__ = [
    "PATIENCE_S",
    "backend_of",
    "becomes",
    "create",
    "hears",
    "pid_of",
    "resumes",
    "said",
    "until",
]

PATIENCE_S: Final = 20


async def create(
    controller: Controller, name: str = "web", code: bytes = COUNTER, *more: DiskSpec
) -> Machine:
    """Make a machine that boots `code`."""
    disks = (boot_disk(controller.home.state, code), *more)
    return await controller.create(
        MachineSpec(name, disks=disks, memory_mib=32, accel="tcg"), backend="virtualbox"
    )


def backend_of(machine: Machine) -> VirtualBoxBackend:
    backend = machine._backend
    assert isinstance(backend, VirtualBoxBackend)
    return backend


def said(machine: Machine) -> str:
    log = machine.console_log
    text = log.read_bytes() if log.exists() else b""
    return "".join(chr(byte) for byte in text if FIRST <= byte <= LAST)


async def hears(machine: Machine, more: int = 2) -> str:
    """Wait for `more` new letters, and return them."""
    begin = len(said(machine))
    await until(lambda: len(said(machine)) >= begin + more)
    return said(machine)[begin:]


async def resumes(machine: Machine) -> str:
    """Let it go on, and return the first letter that it says from then on."""
    begin = len(said(machine))
    await machine.resume()
    await until(lambda: len(said(machine)) > begin)
    return said(machine)[begin]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody tells us."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 files and other processes tell nobody
            await asyncio.sleep(0.02)


async def becomes(machine: Machine, state: MachineState) -> None:
    await machine.wait(state, PATIENCE_S)


def pid_of(lab: Lab, machine: Machine) -> int:
    (pid,) = lab.pids("VBoxHeadless", backend_of(machine).target.id)
    return pid
