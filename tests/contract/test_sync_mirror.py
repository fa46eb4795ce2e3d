"""The synchronous API has the names and signatures of the asynchronous one, and no others."""

import inspect
from typing import Any

import pytest

from hostctl import controller, group, job, machine, sync
from hostctl.sync import group as sync_group
from hostctl_channels import interface, terminal

PAIRS = [
    (controller.Controller, sync.Controller),
    (machine.Machine, sync.Machine),
    (interface.Process, sync.Process),
    (job.Job, sync.Job),
    (group.Group, sync_group.Group),
    (terminal.Terminal, sync.Terminal),
]


GROUPED = {"each": "Iterator[Outcome[T]]", "spawn": "Results[Job]"}


def synchronous(annotation: str) -> str:
    """Return what an annotation of the asynchronous API is in the other one."""
    found = annotation.replace("AbstractAsyncContext", "AbstractContext")
    return found.replace("AsyncJob", "Job").replace("Awaitable[T]", "T")


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
            expected = [(*rest, synchronous(note)) for *rest, note in shape(value)]
            assert [tuple(each) for each in expected] == shape(public(twin)[name]), name


@pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_results_are_equal(ours: type[Any], twin: type[Any]) -> None:
    for name, value in public(ours).items():
        if not isinstance(value, property):
            returns = str(inspect.signature(value).return_annotation)
            expected = synchronous(returns).replace("AsyncIterator", "Iterator")
            if ours is group.Group:  # one waits for all, `each` for the next
                expected = GROUPED.get(name, expected).replace("Fanout[", "Results[")
            assert str(inspect.signature(public(twin)[name]).return_annotation) == expected, name


def test_a_group_has_every_verb_of_a_machine() -> None:
    """But for what has one end: a terminal, a local folder; and for what a controller does."""
    asked = {name for name, value in public(machine.Machine).items() if returns_later(value)}
    verbs = {name for name, value in public(group.Group).items() if callable(value)}
    assert asked - verbs == {"console_endpoint", "close", "clone_into", "get_tree", "sync_from"}
    assert verbs - asked == {"each"}


def returns_later(value: object) -> bool:
    return inspect.iscoroutinefunction(value)


def test_nothing_of_the_twin_waits() -> None:
    for _, twin in PAIRS:
        assert not any(inspect.iscoroutinefunction(value) for value in public(twin).values())
