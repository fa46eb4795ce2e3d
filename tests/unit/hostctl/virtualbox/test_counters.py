"""Counters as VirtualBox 7.2 printed them, read."""

import pytest

from hostctl.backends.virtualbox.counters import disk_bytes

HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<Statistics>\n'
READ = '<Counter c="{}" unit="bytes" vis="used" name="/Public/Storage/{}/BytesRead"/>\n'
WRITTEN = '<Counter c="{}" unit="bytes" vis="used" name="/Public/Storage/{}/BytesWritten"/>\n'


@pytest.mark.parametrize(
    ("counters", "told"),
    [
        (READ.format(8226816, "PIIX3IDE0/Port0"), (8226816, 0)),
        (
            READ.format(512, "AHCI0/Port0")
            + READ.format(1024, "AHCI0/Port1")
            + WRITTEN.format(7, "AHCI0/Port0"),
            (1536, 7),
        ),
        (WRITTEN.format(7, "AHCI0/Port0"), (0, 7)),
        ("", (None, None)),
    ],
)
def test_bytes_of_all_disks_are_added_up(
    counters: str, told: tuple[int | None, int | None]
) -> None:
    assert disk_bytes(f"{HEAD}{counters}</Statistics>\n") == told
