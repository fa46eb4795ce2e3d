"""The synchronous API has the names and signatures of the asynchronous one, and no others."""

import inspect
from typing import Any

import pytest

from hostctl import controller, job, machine, sync
from hostctl_channels import interface, terminal

PAIRS = [
    (controller.Controller, sync.Controller),
    (machine.Machine, sync.Machine),
    (interface.Process, sync.Process),
    (job.Job, sync.Job),
    (terminal.Terminal, sync.Terminal),
]


def public(cls: type[Any]) -> dict[str, Any]:
    bases = [base for base in reversed(cls.__mro__) if base.__module__.startswith("hostctl")]
    found = {name: value for base in bases for name, value in vars(base).items()}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def shape(function: Any) -> list[tuple[str, object, object, str]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default, str(p.annotation)) for p in parameters]


@pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_names_are_equal(ours: type[Any], twin: type[Any]) -> None:
    assert sorted(public(ours)) == sorted(public(twin))


@pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_signatures_are_equal(ours: type[Any], twin: type[Any]) -> None:
    for name, value in public(ours).items():
        if isinstance(value, property):
            assert isinstance(public(twin)[name], property), name
        else:
            assert shape(value) == shape(public(twin)[name]), name


@pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_results_are_equal(ours: type[Any], twin: type[Any]) -> None:
    for name, value in public(ours).items():
        if not isinstance(value, property):
            returns = str(inspect.signature(value).return_annotation)
            expected = returns.replace("AbstractAsyncContext", "AbstractContext")
            expected = expected.replace("AsyncIterator", "Iterator").replace("AsyncJob", "Job")
            assert str(inspect.signature(public(twin)[name]).return_annotation) == expected, name


def test_nothing_of_the_twin_waits() -> None:
    for _, twin in PAIRS:
        assert not any(inspect.iscoroutinefunction(value) for value in public(twin).values())
