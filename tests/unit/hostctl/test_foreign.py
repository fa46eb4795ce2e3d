"""A machine of somebody else's: where its lines are, kept from one command to the next."""

from pathlib import Path

import pytest

from hostctl.backends.qemu.foreign import ForeignBackend
from hostctl.controller import Controller
from hostctl.errors import ConfigError
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.links.serial_line import BAUD, SerialEndpoint
from hostctl_channels.ports import SERIAL


async def line_of(home: Home, name: str) -> SerialEndpoint:
    """Return its serial line, as another process finds it."""
    async with Controller(home) as controller:
        machine: Machine = controller.machine(name)
        assert isinstance(machine._backend, ForeignBackend)
        line = (await machine._backend.endpoints())[SERIAL]
    assert isinstance(line, SerialEndpoint)
    return line


@pytest.mark.parametrize(("baud", "spoken"), [(9600, 9600), (None, BAUD)])
async def test_a_tty_keeps_its_speed(tmp_path: Path, baud: int | None, spoken: int) -> None:
    home = Home(tmp_path / "s", tmp_path / "r")
    async with Controller(home) as controller:
        await controller.adopt_foreign("box", lines={SERIAL: "/dev/ttyUSB7"}, baud=baud)
    line = await line_of(home, "box")
    assert (line.target, line.baud) == ("/dev/ttyUSB7", spoken)


async def test_a_machine_needs_a_way_in(tmp_path: Path) -> None:
    async with Controller(Home(tmp_path / "s", tmp_path / "r")) as controller:
        with pytest.raises(ConfigError, match="a QMP socket or a line"):
            await controller.adopt_foreign("box")
