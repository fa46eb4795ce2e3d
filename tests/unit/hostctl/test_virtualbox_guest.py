"""What VirtualBox says of guests, in our words: statuses, errors, modes."""

import pytest

from hostctl.backends.virtualbox.faults import GuestFault
from hostctl.backends.virtualbox.guest import _errno, _mode, _plain, _status, _translated
from hostctl_channels.errors import (
    ChannelReset,
    ChannelTimeout,
    HostctlError,
    LoginFailed,
    RemoteProtocolError,
    RequestFailed,
    SpawnFailed,
)


def test_statuses() -> None:
    assert _status("TerminatedNormally", 3).code == 3
    assert _status("TerminatedSignal", 15).signal == 15
    assert _status("TerminatedSignal", -5).signal == 9
    assert _status("TerminatedAbnormally", 0).signal == 9
    with pytest.raises(ChannelReset):
        _status("Down", 0)
    with pytest.raises(RemoteProtocolError):
        _status("TerminatedNormally", -1)


def test_modes() -> None:
    assert _mode("rwxr-x---") == 0o750
    assert _mode("rwsr-Sr-T") == 0o7744 & ~0o0010 & ~0o0001 | 0o4000 | 0o2000 | 0o1000


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('No such file or directory "/x" on guest', 2),
        ('Guest file "/x" not found', 2),
        ("Access denied", 13),
        ("VERR_DISK_FULL", 28),
        ("something else", 5),
    ],
)
def test_errors_of_the_guest_have_numbers(text: str, number: int) -> None:
    assert _errno(text) == number


def test_words_are_printable_and_bounded() -> None:
    assert _plain("0x80bb0005 (a \x1b[31m b)") == "a ?[31m b"
    assert len(_plain("x" * 5000)) <= 200


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("login", LoginFailed),
        ("spawn", SpawnFailed),
        ("file", RequestFailed),
        ("gone", ChannelReset),
        ("absent", ChannelTimeout),
        ("silent", ChannelTimeout),
    ],
)
def test_each_fault_is_an_error_of_channels(kind: str, error: type[HostctlError]) -> None:
    with pytest.raises(error), _translated("try"):
        raise GuestFault("no", kind)
