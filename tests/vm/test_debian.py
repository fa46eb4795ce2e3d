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
from hostctl.quiesce import open_agent
from hostctl.state import Home

from . import debian
from .conftest import key_of

logger = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.needs("mmdebstrap", "fakechroot", "fakeroot", "mke2fs", "busybox"),
]


@pytest.fixture(params=["systemd"])
def init(request: pytest.FixtureRequest) -> str:
    """Return which init the disk has; a test names others by `parametrize`."""
    return str(request.param)


@pytest.fixture
async def machine(init: str) -> AsyncIterator[Machine]:
    disk = await asyncio.to_thread(debian.disk, init)
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
    async with open_agent(machine._backend, machine._files) as agent:
        assert (await agent.os_info())["id"] == "debian"
        await agent.shutdown()
    await machine.wait(MachineState.STOPPED, timeout_s=120)
    logger.info("off after %.1f s", time.monotonic() - begin)


@pytest.mark.parametrize("init", debian.INITS, indirect=True)
async def test_a_kept_agent_is_a_service_that_survives_a_reboot(
    machine: Machine, init: str
) -> None:
    await machine.start(timeout_s=600)
    assert await key_of(machine) == "qga"
    told = (await machine.shell("ps -p 1 -o comm=; ls -d /run/systemd/system")).stdout.decode()
    assert ("systemd" in told) == (init == "systemd")
    begin = time.monotonic()
    done = await machine.attach(persist=True)
    logger.info("%s: attached after %.1f s", init, time.monotonic() - begin)
    assert (done.foothold, done.is_service) == ("qga", True)
    assert await key_of(machine) == "agent"

    await reboot(machine)
    machine.use_channel("agent")
    await machine.wait(timeout_s=600)
    async with machine.process("sleep", "600") as process:  # and Ctrl-C reaches what it runs
        await process.signal("INT")
        assert (await process.wait()).signal == 2

    machine.use_channel("auto")
    begin = time.monotonic()
    await machine.detach()
    logger.info("%s: detached after %.1f s", init, time.monotonic() - begin)
    assert await key_of(machine) == "qga"
    async with asyncio.timeout(60):  # init has its own pace
        while (left := (await machine.shell(LEFT)).stdout) != b"":
            logger.info("still there: %s", left)
            await asyncio.sleep(2)

    await reboot(machine)
    await machine.wait(timeout_s=600)
    assert await key_of(machine) == "qga"


# What udev knows of the machine's own ports is no leftover.
LEFT = "find /etc /usr/local /run -path /run/udev -prune -o -name '*hostctl*' -not -path '/dev/*' "
LEFT += "-print; ps ax -o args= | grep '^[^ ]*sh /[^ ]*agent.sh'"


async def reboot(machine: Machine) -> None:
    """Have the guest reboot in order, so that its disk is whole."""
    boot = (await machine.read("/proc/sys/kernel/random/boot_id")).decode()
    logger.info("reboots, was %s", boot.strip())
    await machine.exec("sync")
    await machine.reset(wait=False)
