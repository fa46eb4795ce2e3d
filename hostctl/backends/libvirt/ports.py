"""Ports of one domain: where each is reached, and those that were added to it while it ran.

What was added is written down before it is there, so that whatever is killed, it can be taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...state import MachineFiles, read_json, write_json
from ..interface import CONSOLE, GUEST_AGENT
from .agent import AgentEndpoint
from .binding import libvirt
from .connection import Connection
from .park import park_of
from .stream import StreamEndpoint
from .target import Target, is_local

if TYPE_CHECKING:
    from hostctl_channels.links.interface import Endpoint

__all__ = ["Plugged", "Ports", "attach_port", "detach_ports"]


class Ports:
    """The ports. Each is a stream in a connection of its own, but for the guest agent's."""

    def __init__(self, connection: Connection, target: Target) -> None:
        self._connection = connection  # whose end is the park's end, too
        self._target = target
        self._park = None if is_local(target.uri) else park_of(target.uri)

    def prefetch(self) -> None:
        """Open connections to another host before they are asked for."""
        if self._park is not None:
            self._park.prefetch()

    def endpoints(
        self, names: Iterable[str], serials: Iterable[str], *, steal: bool
    ) -> dict[str, Endpoint]:
        """Return where virtio-serial ports, by name, and serial ones, by alias, are reached."""
        found: dict[str, Endpoint] = {name: self.channel(name, steal=steal) for name in names}
        if GUEST_AGENT in found:
            found[GUEST_AGENT] = AgentEndpoint(self._connection, self._target.uuid)
        for number, alias in enumerate(serials):
            found[f"{CONSOLE.partition('.')[0]}.{number}"] = self._serial(alias, steal=steal)
        return found

    def channel(self, name: str, *, steal: bool = False) -> StreamEndpoint:
        """Return where one virtio-serial port is reached."""
        force = 1 if steal else 0  # VIR_DOMAIN_CHANNEL_FORCE
        return self._endpoint(name, lambda domain, st: domain.openChannel(name, st, force))

    def _serial(self, alias: str, *, steal: bool) -> StreamEndpoint:
        force = 1 if steal else 0  # VIR_DOMAIN_CONSOLE_FORCE
        return self._endpoint(alias, lambda domain, st: domain.openConsole(alias, st, force))

    def _endpoint(self, name: str, attach: Callable[[Any, Any], object]) -> StreamEndpoint:
        target = self._target
        return StreamEndpoint(target.uri, target.uuid, name, attach, self._park)


class Plugged:
    """The names of ports that were added, in a file of the machine's."""

    def __init__(self, files: MachineFiles) -> None:
        self._file: Path = files.directory / "plugged.json"

    def names(self) -> list[str]:
        """Return them, in the order in which they came."""
        return list((read_json(self._file) or {}).get("ports", []))

    def note(self, name: str) -> None:
        """Write down one more, before it is added."""
        write_json(self._file, {"ports": [*self.names(), name]})

    def forget(self) -> None:
        """They are gone."""
        self._file.unlink(missing_ok=True)


def attach_port(domain: Any, name: str) -> None:
    """Add a port to the domain, and to its definition. In the owner thread."""
    from .domain_xml import channel_xml

    domain.attachDeviceFlags(channel_xml(name), _scope(domain))


def detach_ports(domain: Any, names: Sequence[str]) -> None:
    """Detach channels by their whole description, which only the domain itself knows."""
    from .domain_xml import channels_of

    library = libvirt()
    for part, flags in (
        (domain.XMLDesc(0), library.VIR_DOMAIN_AFFECT_LIVE),
        (domain.XMLDesc(library.VIR_DOMAIN_XML_INACTIVE), library.VIR_DOMAIN_AFFECT_CONFIG),
    ):
        if flags & _scope(domain):
            for xml in channels_of(part, names):
                domain.detachDeviceFlags(xml, flags)


def _scope(domain: Any) -> int:
    library = libvirt()
    flags: int = library.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    return flags | (library.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
