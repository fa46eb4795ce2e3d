"""What clones may need, and what there is: on the host, and in our control groups."""

import os
from pathlib import Path

import pytest

from hostctl import memory
from hostctl.errors import MemoryShort
from hostctl.state import Home, write_json

GIB = 1 << 30


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a host with 4 GiB available, where we are in group /a/b."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "a/b").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:  9000000 kB\nMemAvailable:    4194304 kB\n")
    (proc / "self/cgroup").write_text("4:memory:/x\n0::/a/b\n")
    monkeypatch.setattr(memory, "PROC", proc)
    monkeypatch.setattr(memory, "CGROUPS", groups)
    return tmp_path


def group(host: Path, name: str, limit: str, used: int, cache: int) -> None:
    folder = host / "cgroup" / name
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\nactive_file 7\n")


def test_the_narrowest_group_decides_and_its_cache_is_free(host: Path) -> None:
    assert memory.available_bytes() == 4 * GIB
    group(host, "a/b", "max", 5, 0)
    assert memory.available_bytes() == 4 * GIB
    group(host, "a", str(3 * GIB), 2 * GIB, GIB // 2)
    assert memory.available_bytes() == 3 * GIB // 2


def test_a_clone_counts_as_all_its_ram_and_a_living_machine_as_the_rest(host: Path) -> None:
    home = Home(host / "s", host / "r").open()
    files = home.files("old")
    files.directory.mkdir()
    write_json(files.spec, {"backend": "qemu", "spec": {"memory_mib": 1024}})
    write_json(files.run, {"pid": 7})
    assert memory.promised_bytes(home) == 0  # it has no process
    (host / "proc/7").mkdir()
    (host / "proc/7/status").write_text("RssAnon:\t  262144 kB\nRssFile:\t 99 kB\n")
    assert memory.promised_bytes(home) == (1024 + 64 - 256) << 20
    memory.check_memory(home, "t", 448, 6)
    with pytest.raises(MemoryShort, match=r"7 clones .* may need 3584 MiB .* 832") as caught:
        memory.check_memory(home, "t", 448, 7)
    assert caught.value.hint
    assert "--overcommit" in caught.value.hint


def test_this_host_has_memory() -> None:
    assert memory.available_bytes() > 1 << 20 or not os.path.exists("/proc/meminfo")
