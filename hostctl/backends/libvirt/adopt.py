"""Find a domain that somebody else made, and put into our words what it is."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError
from ..interface import MachineSpec, check_name
from .binding import libvirt
from .connection import borrow, give_back
from .domain_xml import view
from .faults import DomainGone
from .target import Target, default_uri

__all__ = ["find"]


async def find(domain: str, uri: str | None, name: str | None) -> tuple[Target, MachineSpec]:
    """Return the domain of that name or uuid, as machine `name` (default: the domain's name).

    Raises:
        ConfigError: there is none, or its name cannot be a machine's.
    """
    uri = uri or default_uri()
    connection = borrow(uri)
    try:
        found, xml = await connection.call(
            f"find domain {domain!r}", lambda connect: _found(connect, domain)
        )
    except DomainGone as err:
        hint = f"see which there are: virsh --connect '{uri}' list --all"
        raise ConfigError(f"no domain {domain!r} at {uri}", hint=hint) from err
    finally:
        await give_back(connection)
    shown = view(xml)
    try:
        check_name(name or found[0])
    except ConfigError as err:
        raise ConfigError(str(err), hint="give the machine a name of its own by --name") from err
    spec = MachineSpec(
        name or found[0],
        memory_mib=max(16, shown.memory_mib),
        cpus=max(1, shown.cpus),
        accel=shown.accel if shown.accel in ("kvm", "tcg") else "auto",
        is_adopted=True,
    )
    return Target(uri, found[0], found[1], is_adopted=True), spec


def _found(connect: Any, domain: str) -> tuple[tuple[str, str], str]:
    library = libvirt()
    try:
        found = connect.lookupByName(domain)
    except library.libvirtError:
        try:
            found = connect.lookupByUUIDString(domain)
        except library.libvirtError as err:
            if err.get_error_code() != library.VIR_ERR_INVALID_ARG:
                raise
            found = connect.lookupByName(domain)  # no uuid either: the first error was right
    return (found.name(), found.UUIDString()), found.XMLDesc(0)
