"""Telnet's bytes: what is taken out, what is doubled, however the pieces are cut."""

import pytest

from hostctl_channels.telnet import Telnet

OFFERS = b"\xff\xfd\x01\xff\xfd\x1f\xff\xfb\x01\xff\xfb\x03"  # as busybox begins
GREETING = b"\r\r\n"
END = b"\x01end"


def decoded(*pieces: bytes) -> bytes:
    telnet = Telnet(END)
    return b"".join(map(telnet.decode, pieces))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (OFFERS + GREETING + b"text", b"text"),
        (GREETING + b"a\xff\xffb", b"a\xffb"),
        (GREETING + b"a\xff\xfa\x18\x01\xff\xff\xff\xf0b", b"ab"),
        (GREETING + b"a\xff\xf9b", b"ab"),
        (b"no greeting", b"no greeting"),
        (b"\r\rx", b"\r\rx"),
        (GREETING + GREETING, GREETING),
        (b"\xff", b""),
        (GREETING + b"text\x01e" + END + bytes(99) + b"\xff\xff", b"text\x01e"),
        (GREETING + b"text" + END, b"text"),
    ],
)
def test_commands_and_the_greeting_are_taken_out(said: bytes, meant: bytes) -> None:
    assert decoded(said) == meant
    assert decoded(*(said[at : at + 1] for at in range(len(said)))) == meant


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (b"ls\r", b"ls\r"),
        (b"\xff", b"\xff\xff"),
        (b"a\r\nb", b"a\r\0\nb"),
        (b"\r\0", b"\r\0\0"),
        (b"\r\r", b"\r\r"),
    ],
)
def test_keys_are_sent_so_that_they_arrive(typed: bytes, sent: bytes) -> None:
    assert Telnet(END).encode(typed) == sent
