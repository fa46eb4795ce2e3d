"""Find a machine that somebody else made, and put into our words what it is."""

from __future__ import annotations

from ...errors import ConfigError
from ..interface import MachineSpec, check_name
from .choice import open_driver
from .faults import NotFound
from .place import Place
from .target import Target

__all__ = ["find"]


async def find(machine: str, connect: str | None, name: str | None) -> tuple[Target, MachineSpec]:
    """Return the machine of that name or id, as machine `name` (default: its own name).

    Raises:
        ConfigError: there is none, or its name cannot be a machine's.
    """
    place = Place.default(connect)
    driver = await open_driver(place)
    try:
        view = await driver.find(machine)
    except NotFound as err:
        hint = "see which there are: VBoxManage list vms"
        raise ConfigError(f"{place} has no machine {machine!r}", hint=hint) from err
    finally:
        await driver.close()
    try:
        check_name(name or view.name)
    except ConfigError as err:
        raise ConfigError(str(err), hint="give the machine a name of its own by --name") from err
    spec = MachineSpec(
        name or view.name,
        memory_mib=max(16, view.memory_mib),
        cpus=max(1, view.cpus),
        is_adopted=True,
    )
    return Target(place, view.id, view.name, is_adopted=True), spec
