"""Which back ends there are: name → "module:class", imported on use."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from ..errors import ConfigError
from ..state import MachineFiles
from .interface import Backend, MachineSpec

__all__ = ["BACKENDS", "open_backend"]

BACKENDS = MappingProxyType({"qemu": ".qemu.backend:QemuBackend"})


def open_backend(kind: str, spec: MachineSpec, files: MachineFiles) -> Backend:
    """Return the back end of one machine; costs nothing but the import.

    Raises:
        ConfigError: no back end of that name.
    """
    target = BACKENDS.get(kind)
    if target is None:
        raise ConfigError(f"back end {kind!r} is unknown", hint=f"use one of {sorted(BACKENDS)}")
    module, _, name = target.partition(":")
    backend: Backend = getattr(import_module(module, __package__), name)(spec, files)
    return backend
