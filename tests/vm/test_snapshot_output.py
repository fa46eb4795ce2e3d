"""Snapshots of guests that say more than is read: whole, or refused; never a guest that hangs.

QEMU brings back a moment wrong that holds output it has not passed on; see outflow.py.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import AsyncIterator

import pytest

from hostctl.errors import OutputWaits
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home

pytestmark = [pytest.mark.vm, pytest.mark.timeout(120)]

PORT = "org.hostctl.out.7"
TALK = f"""for p in /sys/class/virtio-ports/*; do
    [ "$(cat $p/name)" != {PORT} ] || cat /dev/zero >/dev/${{p##*/}} 2>/dev/null & done"""
SAVER = """
import asyncio, sys
from hostctl.controller import Controller
from hostctl.backends.qemu import snapshot
async def held(*_):
    print("held", flush=True)
    await asyncio.sleep(60)
snapshot.let_out = held
async def main():
    async with Controller() as controller:
        await controller.machine(sys.argv[1]).save_snapshot("half")
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def unread(machine: Machine) -> AsyncIterator[None]:
    """Have the guest talk to a port whose client does not read, until QEMU keeps some of it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(machine._files.socket("out.7")))
        await machine.shell(TALK, check=True)
        async with asyncio.timeout(30):
            size = 0
            while not size or _waiting_bytes(client) != size:
                size = _waiting_bytes(client)
                await asyncio.sleep(0.5)
        yield


def _waiting_bytes(client: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(client, termios.FIONREAD, bytes(4)), sys.byteorder)


async def works(machine: Machine) -> None:
    async with asyncio.timeout(30):
        many = await asyncio.gather(*(machine.exec("echo", str(n)) for n in range(4)))
    assert [each.stdout for each in many] == [b"0\n", b"1\n", b"2\n", b"3\n"]


async def test_output_that_nobody_reads_refuses_a_snapshot_and_the_guest_goes_on(
    machine: Machine,
) -> None:
    async with unread(machine):
        with pytest.raises(OutputWaits, match=f"waits at {PORT} "):
            await machine.save_snapshot("unread")
    assert "unread" not in {each.tag for each in await machine.list_snapshots()}
    assert not machine._files.held.exists()
    await works(machine)


async def test_what_a_reader_left_behind_that_hung_up_does_not_spoil_a_snapshot(
    machine: Machine,
) -> None:
    async with unread(machine):
        pass
    await machine.shell("killall cat")
    for tag in ("left", "again"):  # of a buffer that was dropped there are traces for ever
        await machine.save_snapshot(tag)
        await machine.restore_snapshot(tag)
        await works(machine)
    await machine.delete_snapshot("left")
    await machine.delete_snapshot("again")


async def test_a_guest_that_a_killed_saver_held_goes_on(home: Home, machine: Machine) -> None:
    environ = os.environ | {
        "HOSTCTL_STATE_DIR": str(home.state),
        "HOSTCTL_RUNTIME_DIR": str(home.runtime),
    }
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, machine.name], env=environ, stdout=subprocess.PIPE
    ) as saver:
        assert saver.stdout
        assert await asyncio.to_thread(saver.stdout.readline) == b"held\n"
        saver.send_signal(signal.SIGKILL)
    assert machine._files.held.exists()
    await machine.close()
    await works(machine)
    assert not machine._files.held.exists()
    assert await machine.state() is MachineState.RUNNING
    assert "half" not in {each.tag for each in await machine.list_snapshots()}


async def test_what_waits_at_a_restore_does_not_come_into_the_restored_world(
    machine: Machine,
) -> None:
    await machine.save_snapshot("before")
    async with unread(machine):
        await machine.restore_snapshot("before")
    for _ in range(2):
        async with unread(machine):
            await works(machine)
        await machine.shell("killall cat")
    await machine.delete_snapshot("before")
