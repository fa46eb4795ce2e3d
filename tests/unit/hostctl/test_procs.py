import os
import sys
import time
from pathlib import Path

import pytest

from hostctl import procs
from hostctl.backends.process import ProcessId
from hostctl.errors import ToolFailed, ToolMissing


async def test_a_helper_gives_its_output() -> None:
    finished = await procs.run(["sh", "-c", "echo out; echo err >&2"], timeout_s=20)
    assert (finished.stdout, finished.stderr) == (b"out\n", b"err\n")


async def test_a_failure_carries_its_stderr() -> None:
    with pytest.raises(ToolFailed, match="sh ended with status 3: why") as caught:
        await procs.run(["sh", "-c", "echo why >&2; exit 3"], timeout_s=20)
    assert caught.value.returncode == 3


async def test_a_deadline_kills_the_whole_group() -> None:
    begun = time.monotonic()
    with pytest.raises(ToolFailed, match="ran out of time"):
        await procs.run(["sh", "-c", "sleep 60 | sleep 60"], timeout_s=0.1)
    assert time.monotonic() - begun < 10


async def test_cancelling_kills_too() -> None:
    async with procs.running(["sleep", "60"]) as process:
        pass
    assert process.returncode == -9


async def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing) as caught:
        await procs.run(["qemu-img"], timeout_s=1)
    assert caught.value.hint == "apt-get install qemu-utils"


async def test_a_detached_process_has_a_session_a_log_and_nothing_of_ours(tmp_path: Path) -> None:
    code = (
        "import os, sys;"
        "print(os.getsid(0) == os.getpid(), sys.stdin.read(), os.listdir('/proc/self/fd'))"
    )
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        pid = procs.spawn_detached([sys.executable, "-c", code], tmp_path / "log")
    finally:
        os.close(held)
    process = ProcessId.of(pid)
    assert process is None or await process.wait_gone(20)
    # 0, 1, 2 and the listing's own descriptor
    assert (tmp_path / "log").read_text() == "True  ['0', '1', '2', '3']\n"
