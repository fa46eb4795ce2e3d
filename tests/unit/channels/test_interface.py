"""What a command's result says of itself."""

import pytest

from hostctl_channels.errors import CommandFailed
from hostctl_channels.interface import Command, ExitStatus, Result


def result(code: int, stderr: bytes) -> Result:
    return Result(Command.of("make"), ExitStatus(code), b"", stderr, 0.1)


def test_a_good_result_checks_to_itself() -> None:
    good = result(0, b"a warning")
    assert good.check() is good


def test_a_guest_cannot_steer_the_terminal_by_an_error() -> None:
    with pytest.raises(CommandFailed) as caught:
        result(2, b"first\n\x1b[2Jlast\xff\n").check()
    assert str(caught.value) == "make: exit status 2: ?[2Jlast\\xff"
