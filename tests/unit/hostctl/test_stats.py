"""Use of a machine: read from files that a guest may fill with anything."""

import os
import subprocess
import sys
import time

import pytest

from hostctl.stats import LOOK, GuestUse, HostUse


def test_our_own_files_are_read_as_the_system_has_them() -> None:
    text = subprocess.run(["sh", "-c", LOOK], stdout=subprocess.PIPE).stdout
    use = GuestUse.parse(text)
    assert use.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert use.available_bytes is not None
    assert use.memory_bytes is not None
    assert 0 < use.available_bytes < use.memory_bytes
    assert use.uptime_s is not None
    assert use.cpu_s
    assert use.load is not None


@pytest.mark.parametrize(
    "text", [b"", b"\0" * 100, b"1\n2\n", b"9" * 99 + b".00 1.00\n", b"cpu  x y z\nMemTotal: kB\n"]
)
def test_nonsense_is_unknown(text: bytes) -> None:
    assert GuestUse.parse(text) == GuestUse()


def test_the_bytes_of_all_ports_are_one_sum() -> None:
    port = b"name: org.hostctl.1\nbytes_sent: %d\nbytes_received: %d\nbytes_discarded: 9\n"
    use = GuestUse.parse(port % (1, 20) + port % (2, 30))
    assert (use.port_written_bytes, use.port_read_bytes) == (3, 50)


def test_a_process_is_looked_at() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 20
        while (use := HostUse.of(process.pid)) is None or use.cpu_s < 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert use.resident_bytes > 1 << 20
        assert use.threads == 1
    finally:
        process.kill()
        process.wait()
    assert HostUse.of(process.pid) is None
