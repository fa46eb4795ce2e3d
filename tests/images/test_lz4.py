"""The decoder of packed kernels: the format's cases, one by one, and damage."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl_images.lz4 import MAGIC, LZ4Error, decode_legacy

LIMIT = 1 << 20


def frame(*blocks: bytes) -> bytes:
    return MAGIC + b"".join(len(block).to_bytes(4, "little") + block for block in blocks)


def literals(data: bytes) -> bytes:
    """Pack a block that is one run of literals."""
    if len(data) < 15:
        return bytes((len(data) << 4,)) + data
    rest = len(data) - 15
    return b"\xf0" + b"\xff" * (rest // 255) + bytes((rest % 255,)) + data


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=4))
def test_literals_come_out_as_they_went_in(parts: list[bytes]) -> None:
    assert decode_legacy(frame(*map(literals, parts)), LIMIT) == b"".join(parts)


def test_match_copies_what_lies_back() -> None:
    block = b"\x60abcdef" + b"\x06\x00" + literals(b"!")
    assert decode_legacy(frame(block), LIMIT) == b"abcdef" + b"abcd" + b"!"


def test_match_longer_than_its_distance_repeats() -> None:
    block = b"\x27ab" + b"\x02\x00" + literals(b"!")
    assert decode_legacy(frame(block), LIMIT) == b"ab" + b"ababababab" + b"a!"


def test_long_match_has_more_length_bytes() -> None:
    block = b"\x1fa" + b"\x01\x00" + b"\xff\x01" + literals(b"!")
    assert decode_legacy(frame(block), LIMIT) == b"a" * (1 + 4 + 15 + 255 + 1) + b"!"


def test_match_reaches_into_the_block_before() -> None:
    second = b"\x00\x04\x00" + literals(b"!")
    assert decode_legacy(frame(literals(b"wxyz"), second), LIMIT) == b"wxyzwxyz!"


def test_size_that_follows_a_kernel_is_ignored() -> None:
    data = frame(literals(b"text")) + (53_243_444).to_bytes(4, "little")
    assert decode_legacy(data, LIMIT) == b"text"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no magic at all",
        frame(b"\xf0"),
        frame(b"\x10a\x01"),
        frame(b"\x10a\x05\x00"),
        frame(b"\x10a\x00\x00"),
    ],
)
def test_damage_is_refused(data: bytes) -> None:
    with pytest.raises(LZ4Error):
        decode_legacy(data, LIMIT)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(LZ4Error, match="more than 8"):
        decode_legacy(frame(literals(b"123456789")), 8)


@given(st.binary(max_size=200))
def test_garbage_gives_bytes_or_our_error(garbage: bytes) -> None:
    with contextlib.suppress(LZ4Error):
        decode_legacy(frame(garbage), LIMIT)
