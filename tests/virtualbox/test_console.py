"""The console of a machine on the real VirtualBox, and its screen."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hostctl.backends.virtualbox.backend import VirtualBoxBackend
from hostctl.controller import Controller
from hostctl.errors import ChannelClosed, PortHeld
from hostctl.machine import Machine
from hostctl.state import previous
from hostctl_channels.links.interface import Link

from ..bootsector import ECHO
from .boots import PATIENCE_S, backend_of, create, hears, until
from .laboratory import BOOT_MARKS

pytestmark = [*BOOT_MARKS, pytest.mark.timeout(180), pytest.mark.usefixtures("alone")]


class TestConsole:
    async def test_it_can_be_talked_to_and_is_logged_all_the_time(
        self, controller: Controller
    ) -> None:
        machine = await create(controller, "web", ECHO)
        await machine.start(wait=False)
        endpoint = await machine.console_endpoint()
        await _logged(machine, b"!")
        link = await endpoint.open()
        with pytest.raises(PortHeld):
            await endpoint.open()
        for letter in b"hello":  # one by one: a UART without FIFO loses what it has no room for
            await link.send(bytes([letter]))
            assert await _next(link) == bytes([letter])
        link.close()
        await _logged(machine, b"hello")
        await until(lambda: not (machine.console_socket.parent / "console.held").exists())
        again = await endpoint.open()
        again.close()

    async def test_a_console_that_was_left_by_sigkill_is_logged_again(
        self, controller: Controller
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        backend = backend_of(machine)
        await hears(machine)
        link = await (await machine.console_endpoint()).open()
        _let_go(backend)
        await machine.pause()  # whatever locks the machine finds it
        await machine.resume()
        await hears(machine)
        link.close()

    async def test_a_stopped_machine_has_none(self, controller: Controller) -> None:
        machine = await create(controller)
        with pytest.raises(ChannelClosed):
            await (await machine.console_endpoint()).open()

    async def test_a_log_that_grows_too_long_begins_anew(
        self, controller: Controller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        heard = await hears(machine, 5)
        monkeypatch.setattr("hostctl.backends.virtualbox.backend.MAX_CONSOLE", 3)
        await machine.pause()
        full = previous(machine.console_log).read_bytes()
        assert heard.encode() in full
        assert not machine.console_log.read_bytes().startswith(full)
        await machine.resume()
        await hears(machine)

    async def test_the_screen_is_a_png(self, controller: Controller) -> None:
        machine = await create(controller)
        await machine.start(wait=False)
        assert (await machine.screenshot()).startswith(b"\x89PNG")


async def _logged(machine: Machine, text: bytes) -> None:
    await until(lambda: text in machine.console_log.read_bytes())


async def _next(link: Link) -> bytes:
    buffer = bytearray(1)
    async with asyncio.timeout(PATIENCE_S):
        await link.receive_into(buffer)
    return bytes(buffer)


def _let_go(backend: VirtualBoxBackend) -> None:
    """Free the console's lock as the kernel does for a holder that was killed."""
    path = str(backend._console_lock)
    for entry in Path("/proc/self/fd").iterdir():
        if os.path.exists(entry) and os.readlink(entry) == path:
            import fcntl

            fcntl.flock(int(entry.name), fcntl.LOCK_UN)
