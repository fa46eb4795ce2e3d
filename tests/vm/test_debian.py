"""A distribution as people have it: Debian's disk, systemd, dbus, and its own qemu-guest-agent.

Times are logged: --log-cli-level=INFO shows them.
"""

import asyncio
import io
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.controller import Controller
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home

from . import debian

logger = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.needs("mmdebstrap", "fakechroot", "fakeroot", "mke2fs", "busybox"),
]


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    disk = await asyncio.to_thread(debian.disk)
    with tempfile.TemporaryDirectory(prefix="hd-") as root:
        kernel, initrd = await asyncio.to_thread(debian.boot_files, Path(root))
        async with Controller(Home(Path(root) / "s", Path(root) / "r")) as controller:
            spec = MachineSpec(
                f"debian-{os.getpid()}",
                kernel=kernel,
                initrd=initrd,
                append=debian.APPEND,
                memory_mib=512,
                disks=(DiskSpec(disk, format="raw"),),
                accel="tcg",
            )
            machine = await controller.create(spec)
            try:
                yield machine
            finally:
                await machine.delete(force=True)


async def test_a_stock_debian_is_reached_by_its_own_agent(machine: Machine) -> None:
    begin = time.monotonic()
    await machine.start(timeout_s=600)
    logger.info("answers after %.1f s", time.monotonic() - begin)
    report = await machine.describe()
    assert (report.channel, report.guest_nics) == ("QEMU guest agent", ("lo",))
    text = (await machine.exec("cat", "/etc/os-release", check=True)).stdout
    assert b"Debian" in text
    assert (await machine.exec("cat", "/proc/1/comm")).stdout == b"systemd\n"
    result = await machine.exec("sh", "-c", "id -un; pwd", user="nobody", cwd="/tmp", check=True)
    assert result.stdout == b"nobody\n/tmp\n"

    data = os.urandom(3_000_000)
    await machine.put(io.BytesIO(data), "/root/file", verify="sha256", mode=0o600)
    sink = io.BytesIO()
    await machine.get("/root/file", sink, verify="sha256", stat=True)
    assert sink.getvalue() == data

    begin = time.monotonic()
    await machine.save_snapshot("still", quiesce=True)
    logger.info("quiesced snapshot after %.1f s", time.monotonic() - begin)
    await machine.exec("rm", "/root/file", check=True)
    begin = time.monotonic()
    await machine.restore_snapshot("still")
    logger.info("restored after %.1f s", time.monotonic() - begin)
    await machine.exec("sh", "-c", "echo x >>/root/file; sync", check=True, timeout_s=60)
    assert abs(int((await machine.exec("date", "+%s")).stdout) - time.time()) < 30

    begin = time.monotonic()
    async with machine._guest_agent() as agent:
        assert (await agent.os_info())["id"] == "debian"
        await agent.shutdown()
    await machine.wait(MachineState.STOPPED, timeout_s=120)
    logger.info("off after %.1f s", time.monotonic() - begin)
