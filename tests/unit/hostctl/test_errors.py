import inspect

import pytest

from hostctl import errors
from hostctl.errors import BootFailed, Busy, HostctlError, MachineNotFound, ToolFailed

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_every_error_has_one_root() -> None:
    assert all(issubclass(cls, HostctlError) for cls in CLASSES)


def test_the_drawing_names_every_error_of_this_floor() -> None:
    ours = [cls for cls in CLASSES if cls.__module__ == errors.__name__]
    assert all(cls.__name__ in inspect.getdoc(errors) for cls in ours)  # type: ignore[operator]  # it has one


@pytest.mark.parametrize(
    ("error", "standard"),
    [(Busy("machine 'a'", 7), TimeoutError), (MachineNotFound("a"), LookupError)],
)
def test_errors_that_are_also_standard_ones_are_both(
    error: HostctlError, standard: type[Exception]
) -> None:
    assert isinstance(error, standard)
    assert error.hint


def test_busy_names_the_holder() -> None:
    error = Busy("machine 'a'", 4711, "start")
    assert "4711" in str(error)
    assert "start" in str(error)
    assert error.holder_pid == 4711


def test_a_failed_tool_is_told_by_its_last_line() -> None:
    error = ToolFailed(["qemu-img", "info"], 1, "warning: x\nqemu-img: no such file\n")
    assert str(error) == "qemu-img ended with status 1: qemu-img: no such file"
    assert str(ToolFailed(["qemu-img"], None, "")) == "qemu-img ran out of time: no message"


def test_last_words_travel_as_data() -> None:
    error = BootFailed("boot", stderr="a\nb", console="panic", hint="look")
    assert (error.stderr, error.console, error.hint) == ("a\nb", "panic", "look")
