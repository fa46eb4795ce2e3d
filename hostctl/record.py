"""machine.json: what a machine is, as its folder keeps it.

Owns the file's version and its shape. What `options` mean is the back end's affair, but for three
words of ours: the `template` a clone came of, the `pool` it was made for, and the `owner`, the
process that a clone goes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from .backends.interface import MachineSpec
from .errors import BackendError, ConfigError, MachineNotFound
from .state import MachineFiles, read_json, write_json

__all__ = ["Record", "read_options"]

VERSION: Final = 1
_NONE: Final = MappingProxyType[str, Any]({})


class Record(NamedTuple):  # a dataclass costs each command a millisecond
    """A machine's hypervisor, by its key in the registry; its shape; its back end's options."""

    backend: str
    spec: MachineSpec
    options: Mapping[str, Any] = _NONE

    @classmethod
    def read(cls, files: MachineFiles) -> Self:
        """Read a machine's record.

        Raises:
            MachineNotFound: there is none.
            ConfigError: another hostctl wrote it. BackendError: it is damaged.
        """
        data = read_json(files.spec)
        if data is None:
            raise MachineNotFound(files.name)
        if data.get("version") != VERSION:
            raise ConfigError(
                f"{files.spec} has version {data.get('version')}, this hostctl reads {VERSION}",
                hint="use the hostctl that made the machine",
            )
        try:
            spec = MachineSpec.from_json(data["spec"])
            return cls(data["backend"], spec, data.get("options") or {})
        except (KeyError, TypeError) as err:
            hint = f"remove {files.directory}"
            raise BackendError(f"{files.spec} is damaged: {err!r}", hint=hint) from err

    def write(self, files: MachineFiles) -> None:
        """Keep it, in place of the one before."""
        data = {"version": VERSION, "backend": self.backend, "spec": self.spec.to_json()}
        write_json(files.spec, {**data, "options": self.options} if self.options else data)

    def without_owner(self) -> Self:
        """Return it as of a machine that goes with no process."""
        options = {key: value for key, value in self.options.items() if key != "owner"}
        return self._replace(options=options)


def read_options(files: MachineFiles) -> Mapping[str, Any]:
    """Return the options alone, of whatever version; none of a machine that is gone."""
    return (read_json(files.spec) or {}).get("options") or {}
