"""Machines on libvirt through all floors: what breaks, who holds what, whose domain it is."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.backends.libvirt.backend import LibvirtBackend
from hostctl.backends.libvirt.binding import libvirt
from hostctl.backends.libvirt.ports import Ports
from hostctl.backends.libvirt.stream import StreamLink
from hostctl.controller import Controller
from hostctl.errors import BootFailed, ConfigError, HostctlError, PortHeld, WrongState
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home
from hostctl_channels.agent_channel import AgentChannel
from hostctl_channels.interface import Command
from hostctl_channels.ports import WORK, PortPool

from ..bootsector import boot_spec
from ..homes import environment
from .daemon import Daemon

pytestmark = [pytest.mark.vm, pytest.mark.needs("libvirt"), pytest.mark.timeout(120)]

SOON_S = 10
FOREIGN = """<domain type='qemu'><name>theirs</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><interface type='user'><model type='e1000'/></interface></devices></domain>"""


def backend_of(machine: Machine) -> LibvirtBackend:
    assert isinstance(machine._backend, LibvirtBackend)
    return machine._backend


async def pid_of(machine: Machine) -> int:
    pid = (await machine.describe()).pid
    assert pid is not None
    return pid


async def logged(machine: Machine, text: bytes) -> None:
    """Wait until the console's log has `text`."""
    log = b""
    while text not in log:
        await asyncio.sleep(0.05)
        log = (await machine.fetch_console_log()).read_bytes()


@pytest.fixture
async def small(controller: Controller, libvirtd: Daemon) -> AsyncIterator[Machine]:
    """Yield a machine without an agent, made in half a second."""
    with tempfile.TemporaryDirectory(prefix="hb-") as root:
        Path(root).chmod(0o711)
        spec = boot_spec("small", Path(root))
        machine = await controller.create(spec, backend="libvirt", connect=libvirtd.uri)
        yield machine
        await machine.delete(force=True)


class TestBreakage:
    async def test_a_killed_libvirtd_breaks_lines_at_once_and_spares_the_machine(
        self, machine: Machine, libvirtd: Daemon
    ) -> None:
        pid = await pid_of(machine)
        async with asyncio.timeout(SOON_S):
            with pytest.raises(HostctlError, match="line"):
                await self._run_until_killed(machine, libvirtd)
        with pytest.raises(HostctlError, match="connect"):
            await machine.state()
        libvirtd.start_libvirtd()
        assert await machine.state() is MachineState.RUNNING
        assert (await machine.exec("echo", "back")).stdout == b"back\n"
        assert await pid_of(machine) == pid

    async def _run_until_killed(self, machine: Machine, libvirtd: Daemon) -> None:
        async with machine.process("sh", "-c", "echo on; sleep 60") as process:
            assert await process.read() == (1, b"on\n")
            libvirtd.kill_libvirtd()
            while await process.read():
                pass

    async def test_a_killed_qemu_is_a_crash_until_it_is_stopped(self, small: Machine) -> None:
        await small.start(wait=False)
        os.kill(await pid_of(small), signal.SIGKILL)
        await small.wait(MachineState.CRASHED, SOON_S)
        await small.stop()
        assert await small.state() is MachineState.STOPPED

    async def test_a_hostctl_killed_in_create_leaves_nothing_for_long(
        self, libvirtd: Daemon, home: Home, controller: Controller
    ) -> None:
        code = f"""
import asyncio, os, signal
from pathlib import Path
from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.backends.libvirt.definition import Definition
from hostctl.controller import Controller
from hostctl.state import Home
made = Definition.make
def make(self):
    made(self)
    os.kill(os.getpid(), signal.SIGKILL)
Definition.make = make
home = Home(Path({str(home.state)!r}), Path({str(home.runtime)!r}))
spec = MachineSpec("dead", disks=(DiskSpec(size_bytes=1 << 20),))
asyncio.run(Controller(home).create(spec, backend="libvirt", connect={libvirtd.uri!r}))
"""
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=False)
        assert done.returncode == -signal.SIGKILL
        assert [path.name for path in libvirtd.pool.glob("hostctl-dead-*")] != []
        with tempfile.TemporaryDirectory(prefix="hb-") as root:
            Path(root).chmod(0o711)
            spec = boot_spec("next", Path(root))
            machine = await controller.create(spec, backend="libvirt", connect=libvirtd.uri)
            await machine.delete()
        assert list(libvirtd.pool.glob("hostctl-dead-*")) == []
        connect = libvirt().open(libvirtd.uri)
        assert not [one for one in connect.listAllDomains() if "-dead-" in one.name()]
        connect.close()
        assert [path.stem for path in (home.state / "libvirt").iterdir()] == [
            backend_of(controller.machine("tiny")).target.uuid
        ]


class TestLines:
    async def test_held_ports_are_told_and_can_be_stolen(self, machine: Machine) -> None:
        backend = backend_of(machine)
        endpoints = await backend.endpoints()
        held = [await endpoints[name].open() for name in WORK]
        pool = PortPool(await backend.endpoints(), machine._files.runtime)
        with pytest.raises(PortHeld, match="held by another connection"):
            await pool.lease(WORK, 0.2)
        machine.steal = True
        assert (await machine.exec("echo", "mine")).stdout == b"mine\n"
        for link in held:
            link.close()

    async def test_one_held_port_is_passed_over(self, machine: Machine) -> None:
        held = await (await backend_of(machine).endpoints())[WORK[0]].open()
        assert (await machine.exec("echo", "on another")).stdout == b"on another\n"
        held.close()

    async def test_a_plugged_port_is_served(self, machine: Machine, tmp_path: Path) -> None:
        backend = backend_of(machine)
        await backend.plug(["org.hostctl.5"])
        # The wire does not name the port it runs on: our channel may take it for its first one.
        port = Ports(backend._connection(), backend.target).channel("org.hostctl.5")
        pool = PortPool({WORK[0]: port}, tmp_path)
        channel = AgentChannel(pool, machine._files.pulse())
        await channel.connect(30)
        assert (await channel.exec(Command.of("echo", "new"))).stdout == b"new\n"
        await channel.close()

    async def test_the_console_is_a_line_too(self, machine: Machine) -> None:
        link = await (await machine.console_endpoint()).open()
        assert isinstance(link, StreamLink)
        await machine.shell("echo from inside > /dev/ttyS0")
        buffer, got = bytearray(4096), b""
        async with asyncio.timeout(SOON_S):
            while b"from inside" not in got:
                got += buffer[: await link.receive_into(buffer)]
        link.close()
        async with asyncio.timeout(SOON_S):  # and what was said is kept
            await logged(machine, b"from inside")

    async def test_what_happens_is_heard(self, machine: Machine) -> None:
        with backend_of(machine).hearing() as heard:
            await machine.pause()
            await machine.resume()
            async with asyncio.timeout(SOON_S):
                assert [(await heard.get()).kind for _ in range(2)] == ["suspended", "resumed"]


class TestSnapshotsWithoutDisks:
    async def test_memory_is_saved_and_brought_back(self, machine: Machine) -> None:
        await machine.shell("echo before > /tmp/moment", check=True)
        await machine.save_snapshot("a")
        await machine.shell("echo after > /tmp/moment", check=True)
        await machine.restore_snapshot("a")
        assert await machine.read("/tmp/moment") == b"before\n"
        (saved,) = await machine.list_snapshots()
        assert (saved.tag, saved.paused) == ("a", False)
        assert saved.vm_state_bytes is not None
        await machine.delete_snapshot("a")
        assert await machine.list_snapshots() == ()


class TestAdoption:
    @pytest.fixture
    def theirs(self, libvirtd: Daemon) -> "object":
        connect = libvirt().open(libvirtd.uri)
        domain = connect.defineXML(FOREIGN)
        yield domain
        if domain.name() in [one.name() for one in connect.listAllDomains()]:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        connect.close()

    async def test_its_life_is_ours_and_it_is_not(
        self, controller: Controller, libvirtd: Daemon, theirs: object
    ) -> None:
        machine = await controller.adopt("theirs", connect=libvirtd.uri, name="mine")
        assert (machine.spec.memory_mib, machine.spec.is_adopted) == (32, True)
        await machine.start(wait=False)
        report = await machine.describe()
        assert [nic.kind for nic in report.nics or ()] == ["e1000"]
        with pytest.raises(HostctlError, match="no port"):
            await machine.exec("true")
        with pytest.raises(BootFailed, match="already running"):
            await backend_of(machine).launch()  # and it is spared
        await machine.pause()
        assert await machine.state() is MachineState.PAUSED
        await machine.resume()
        await machine.delete(force=True)
        assert theirs.isActive()  # type: ignore[attr-defined]  # forgotten, and spared
        again = await controller.adopt(theirs.UUIDString(), connect=libvirtd.uri)  # type: ignore[attr-defined]
        assert again.name == "theirs"
        with pytest.raises(WrongState):
            await again.delete(undefine=True)
        await again.delete(force=True, undefine=True)
        with pytest.raises(ConfigError, match="no domain 'theirs'"):
            await controller.adopt("theirs", connect=libvirtd.uri)

    async def test_a_running_domain_with_an_agent_is_reached(
        self, controller: Controller, machine: Machine
    ) -> None:
        target = backend_of(machine).target
        again = await controller.adopt(target.domain, connect=target.uri, name="again")
        assert (await again.exec("echo", "hello")).stdout == b"hello\n"
        await again.delete()
        assert await machine.state() is MachineState.RUNNING


class TestRemote:
    @pytest.mark.needs("sshd", "nc")
    async def test_a_machine_is_made_and_run_through_ssh(
        self, controller: Controller, ssh_uri: str, libvirtd: Daemon
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="hb-") as root:
            spec = boot_spec("far", Path(root))  # its disk is unreadable there: it is copied
            machine = await controller.create(spec, backend="libvirt", connect=ssh_uri)
            try:
                await machine.start(wait=False)
                assert await machine.state() is MachineState.RUNNING
                async with asyncio.timeout(SOON_S):
                    await logged(machine, b"012")
            finally:
                await machine.delete(force=True)
        assert list(libvirtd.pool.glob("hostctl-far-*")) == []


async def test_the_command_line_knows_it(machine: Machine, home: Home) -> None:
    environ = environment(home)

    def hostctl(*words: str) -> str:
        argv = [sys.executable, "-m", "hostctl", *words]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert await asyncio.to_thread(hostctl, "exec", "tiny", "--", "echo", "hi") == "hi\n"
    assert "running" in await asyncio.to_thread(hostctl, "list")
    shown = json.loads(await asyncio.to_thread(hostctl, "show", "--json", "tiny"))
    assert shown["network"]["isolated"] is True
    assert shown["hypervisor"].startswith("libvirt qemu+unix:///")
    assert {port["name"] for port in shown["ports"]} >= {"org.hostctl.1", "org.qemu.guest_agent.0"}
    assert await asyncio.to_thread(hostctl, "console", "--log", "tiny")


async def test_a_spec_without_a_name_is_no_machine(controller: Controller) -> None:
    with pytest.raises(ConfigError, match="connects to nothing"):
        await controller.create(MachineSpec("x", image="tiny"), connect="qemu:///system")
