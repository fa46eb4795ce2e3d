"""Sizes and durations."""

import pytest

from hostctl.cli import units


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("1K", 1024), ("256M", 2**28), ("2g", 2**31), ("1.5 GiB", 1610612736)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "1.0001K", "256MM", "∞", "1e3"])
def test_what_is_no_size_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match='"'):
        units.parse_size(text)


def test_bare_memory_is_mebibytes() -> None:
    assert units.parse_memory_mib("256") == units.parse_memory_mib("256M") == 256
    assert units.parse_memory_mib("1G") == 1024


@pytest.mark.parametrize("text", ["0", "100K", "1.5", "x"])
def test_memory_is_whole_mebibytes(text: str) -> None:
    with pytest.raises(ValueError, match="256M"):
        units.parse_memory_mib(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("1.5s", 1.5), ("200ms", 0.2), ("2m", 120), ("1H", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1", "0", "5x", "1m30s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|no time"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2**20, "1 MiB"), (97 * 2**20, "97 MiB"), (2**40, "1 TiB")],
)
def test_sizes_are_shown_short(size: int, text: str) -> None:
    assert units.show_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0127, "12.7 ms"),
        (6.44, "6.4 s"),
        (83.5, "1m 23s"),
        (3600, "1h 0m"),
        (7290, "2h 1m"),
        (200000, "2d 7h"),
    ],
)
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert units.show_duration(seconds) == text
