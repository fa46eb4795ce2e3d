"""Which back ends there are: name → "module:class", imported on use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError
from ..state import MachineFiles
from .interface import Backend, MachineSpec

__all__ = ["ADOPTERS", "BACKENDS", "find", "new_options", "open_backend"]

BACKENDS = MappingProxyType(
    {
        "qemu": ".qemu.backend:QemuBackend",
        "libvirt": ".libvirt.backend:LibvirtBackend",
        "virtualbox": ".virtualbox.backend:VirtualBoxBackend",
        "foreign": ".qemu.foreign:ForeignBackend",
    }
)


ADOPTERS = ("libvirt", "virtualbox")
"""Back ends that take machines of somebody else's."""


async def find(
    kind: str, machine: str, connect: str | None, name: str | None
) -> tuple[dict[str, Any], MachineSpec]:
    """Return the options and the spec of a machine that somebody else made, as machine `name`.

    Raises:
        ConfigError: there is none, its name cannot be a machine's, or no such back end adopts.
    """
    if kind not in ADOPTERS:
        raise ConfigError(f"back end {kind!r} adopts nothing", hint=f"use one of {ADOPTERS}")
    adopter = import_module(f".{kind}.adopt", __package__)
    target, spec = await adopter.find(machine, connect, name)
    return target.to_json(), spec


def new_options(kind: str, name: str, connect: str | None) -> dict[str, Any]:
    """Return what the back end of a new machine has to remember, for machine.json.

    Raises:
        ConfigError: the back end connects to nothing, and `connect` names something.
    """
    if kind == "libvirt":
        from .libvirt.target import Target

        return Target.new(name, connect).to_json()
    if kind == "virtualbox":
        from .virtualbox.target import Target as Machine

        return Machine.new(name, connect).to_json()
    if connect is not None:
        hint = "use --backend libvirt or virtualbox"
        raise ConfigError(f"back end {kind!r} connects to nothing", hint=hint)
    return {}


def open_backend(
    kind: str, spec: MachineSpec, files: MachineFiles, options: Mapping[str, Any] | None = None
) -> Backend:
    """Return the back end of one machine; costs nothing but the import.

    `options` are the back end's own, as machine.json keeps them.

    Raises:
        ConfigError: no back end of that name.
    """
    target = BACKENDS.get(kind)
    if target is None:
        raise ConfigError(f"back end {kind!r} is unknown", hint=f"use one of {sorted(BACKENDS)}")
    module, _, name = target.partition(":")
    backend: Backend = getattr(import_module(module, __package__), name)(spec, files, options or {})
    return backend
