"""What machine a test wants: put together from its markers, the command line and the ini file.

Nearer wins: a call of `vm_factory`, the test's marker, its class's, its module's, the command line,
the ini file, hostctl's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    import pytest

    from ..sync import Machine

__all__ = ["OPTIONS", "VmFactory", "Wish"]

OPTIONS: Final = {
    "image": ("NAME", "the image that machines boot (default: tiny)"),
    "memory": ("SIZE", "their memory, such as 512M or 1G (default: 256M)"),
    "cpus": ("N", "their CPUs (default: 1)"),
    "template": ("NAME", "clone this template (hostctl template create), in place of an image's"),
}
"""What a marker, `--vm-…` and `vm_…` in the ini file may say: metavar and help."""


class VmFactory(Protocol):
    """What the fixture `vm_factory` is; it may be called any number of times."""

    def __call__(
        self,
        *,
        image: str | None = None,
        memory: int | str | None = None,
        cpus: int | None = None,
        template: str | None = None,
    ) -> Machine:
        """Return one more machine. What is not said here is as for `vm`; `memory` is in MiB."""


class Wish(NamedTuple):
    """What a machine shall be. A template has a shape of its own: then the rest says nothing."""

    image: str
    memory_mib: int
    cpus: int
    template: str | None

    @classmethod
    def of(cls, request: pytest.FixtureRequest, asked: Mapping[str, Any]) -> Wish:
        """Return what a fixture is to give; `asked` is nearest.

        Raises:
            ConfigError: somebody asked for what cannot be.
        """
        found = _merged(_levels(request, asked))
        template = found.get("template")
        return cls(
            image=str(found.get("image", "tiny")),
            memory_mib=_memory_mib(found.get("memory")),
            cpus=_cpus(found.get("cpus", 1)),
            template=None if template is None else str(template),
        )


def _levels(
    request: pytest.FixtureRequest, asked: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield who says what, the nearest first."""
    config = request.config
    yield "vm_factory", _said(asked)
    for mark in request.node.iter_markers("vm"):
        _check(mark)
        yield "the marker vm", _said(mark.kwargs)
    yield "the command line", _said({key: config.getoption(f"vm_{key}") for key in OPTIONS})
    yield "the ini file", _said({key: config.getini(f"vm_{key}") for key in OPTIONS})


def _said(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "")}


def _check(mark: pytest.Mark) -> None:
    from ..errors import ConfigError

    wrong = [*map(repr, mark.args), *(key for key in mark.kwargs if key not in OPTIONS)]
    if wrong:
        hint = f"it takes {', '.join(f'{key}=' for key in OPTIONS)}"
        raise ConfigError(f"the marker vm does not know {wrong[0]}", hint=hint)


def _merged(levels: Iterable[tuple[str, Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Return what the nearest say. A template and a shape exclude each other: the nearer is it."""
    found: dict[str, Any] = {}
    for who, level in levels:
        if "template" in level and len(level) > 1:
            from ..errors import ConfigError

            other = next(key for key in level if key != "template")
            hint = "a template has its own memory and CPUs"
            raise ConfigError(f"{who} names a template and {other}", hint=hint)
        if not found or ("template" in found) == ("template" in level):
            found = {**level, **found}
    return found


def _memory_mib(memory: object) -> int:
    from ..backends.interface import MEMORY_MIB
    from ..cli.units import parse_memory_mib
    from ..errors import ConfigError

    if memory is None:
        return MEMORY_MIB
    try:
        return parse_memory_mib(str(memory))
    except ValueError as err:
        raise ConfigError(f"memory of a test's machine: {err}") from err


def _cpus(cpus: object) -> int:
    from ..errors import ConfigError

    try:
        return int(str(cpus))
    except ValueError as err:
        raise ConfigError(f'CPUs of a test\'s machine: "{cpus}" is no number') from err
