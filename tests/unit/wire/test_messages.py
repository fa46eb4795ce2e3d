"""Requests become words; frames become events, or are refused."""

import pytest

from hostctl_channels.errors import RemoteProtocolError
from hostctl_channels.wire import messages as m
from hostctl_channels.wire.schema import ERROR, EXIT, HELLO


@pytest.mark.parametrize(
    ("mode", "umask", "chmod"),
    [
        (None, b"22", b""),
        (0o644, b"22", b""),
        (0o600, b"66", b""),
        (0o666, b"0", b""),
        (0o000, b"666", b""),
        (0o755, b"22", b"755"),
        (0o4755, b"22", b"4755"),
    ],
)
def test_a_mode_without_x_needs_no_chmod(mode: int | None, umask: bytes, chmod: bytes) -> None:
    assert m.put(b"/x", 0, mode=mode).words[1:3] == (umask, chmod)


@pytest.mark.parametrize(
    ("limit", "word"), [(1, b"1"), (0.25, b"0.25"), (90.0, b"90"), (100, b"100")]
)
def test_a_whole_timeout_suits_any_sleep(limit: float, word: bytes) -> None:
    assert m.execute([b"id"], timeout_s=limit).words[2:4] == (b"t-", word)


def test_a_seed_of_any_size_is_a_word_of_256_bits() -> None:
    (word,) = m.entropy(bytes(100_000)).words
    assert len(bytes.fromhex(word.decode())) == 32
    assert m.entropy(b"a").words != m.entropy(b"b").words


def test_features_are_words() -> None:
    body = HELLO.build({"version": 1, "features": b"agent=1 stat"})
    assert m.parse(b"H", 0, body) == m.Hello(1, frozenset({"agent=1", "stat"}))


def test_memory_is_known_where_the_guest_tells() -> None:
    body = EXIT.build(
        {"code": 0, "signal": 0, "flags": 2, "user_ms": 1, "system_ms": 2, "max_rss_kib": 3}
    )
    assert m.parse(b"X", 0, body) == m.Exit(0, 0, False, (0.001, 0.002), 3072)


def test_an_error_text_is_made_printable() -> None:
    body = ERROR.build({"errno": 5, "text": b"a\x1b[2Jb\n\xff"})
    assert m.parse(b"E", 0, body) == m.Failure(5, "a?[2Jb?\\xff")


def test_a_digest_is_a_fact() -> None:
    assert m.parse(b"D", 0, b"sha256=" + b"0a" * 32) == m.Done(sha256="0a" * 32)


@pytest.mark.parametrize(
    ("kind", "stream", "body"),
    [
        (b"H", 0, b""),
        (b"H", 0, b"\x01\xff"),
        (b"X", 0, b"\0" * 14),
        (b"X", 0, b"\x01\x09" + b"\0" * 13),
        (b"X", 0, b"\x00\x41" + b"\0" * 13),
        (b"X", 0, b"\x00\x00\x08" + b"\0" * 12),
        (b"E", 0, b"\0"),
        (b"D", 0, b"mode=9"),
        (b"D", 0, b"mode=644 mode=644"),
        (b"D", 0, b"size=1"),
        (b"D", 0, b"mtime=1e400"),
        (b"D", 0, b"sha256=ab"),
        (b"D", 0, b"\xff"),
        (b"P", 1, b""),
        (b"B", 3, b""),
    ],
)
def test_what_the_agent_would_not_say_is_refused(kind: bytes, stream: int, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        m.parse(kind, stream, body)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="16 bytes"):
        m.parse(b"X", 0, b"\0" * 16)
