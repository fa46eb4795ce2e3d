"""What every Backend keeps, whatever it drives. A new one adds its name to IMPLEMENTATIONS.

The guest is a boot sector that counts on its console, so that running, frozen and restored can be
told apart with no agent. The caller's part (locks, the epoch) is played by the tests.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hostctl.backends.interface import CONSOLE, Backend
from hostctl.backends.registry import new_options, open_backend
from hostctl.errors import BackendError, BootFailed, SnapshotExists, SnapshotNotFound
from hostctl.lifecycle import MachineState
from hostctl.state import Home, MachineFiles, cut_log, previous
from hostctl_channels.ports import GUEST_AGENT, GUEST_CONTROL, PORTS, SERIAL
from hostctl_channels.qga import Exchanging

from ..bootsector import COUNTER, FIRST, LAST, REBOOTING, boot_spec
from ..virtualbox.laboratory import BOOT_MARKS, Lab

IMPLEMENTATIONS = [
    "qemu",
    pytest.param("libvirt", marks=pytest.mark.needs("libvirt")),
    pytest.param("virtualbox", marks=BOOT_MARKS),
    # Its verbs are compared with the API's in tests/virtualbox; all of this takes it a minute.
    pytest.param("VBoxManage", marks=[*BOOT_MARKS, pytest.mark.nightly]),
]
PATIENCE_S = 20
SNAPSHOT_S = 30
USB_NIC = (
    "-device",
    "piix3-usb-uhci,addr=0x1d",
    *("-device", "usb-net,netdev=n"),
    *("-netdev", "hubport,hubid=0,id=n"),
)

pytestmark = [pytest.mark.vm, pytest.mark.timeout(120)]


class Bench:
    """A back end and what its guest says."""

    def __init__(self, backend: Backend, files: MachineFiles) -> None:
        self.backend = backend
        self.files = files

    async def said(self) -> str:
        """Return the letters so far, without the BIOS's own words."""
        await self.backend.fetch_console()
        text = self.files.console_log.read_bytes() if self.files.console_log.exists() else b""
        return "".join(chr(byte) for byte in text if FIRST <= byte <= LAST)

    async def hears(self, more: int = 2) -> str:
        """Wait for `more` new letters, and return them."""
        said = await self.said()
        begin = len(said)
        async with asyncio.timeout(PATIENCE_S):
            while len(said) < begin + more:
                await asyncio.sleep(0.01)  # a file tells nobody
                said = await self.said()
        return said[begin:]

    async def resumes(self) -> str:
        """Let it go on, and return the first letter that it says from then on."""
        begin = len(await self.said())
        await self.backend.resume()
        async with asyncio.timeout(PATIENCE_S):
            while len(said := await self.said()) == begin:  # noqa: ASYNC110 a file tells nobody
                await asyncio.sleep(0.01)
        return said[begin]

    async def is_silent(self) -> bool:
        """Tell whether nothing is said for four ticks."""
        begin = await self.said()
        await asyncio.sleep(0.25)
        return await self.said() == begin

    async def pid(self) -> int:
        pid = (await self.backend.describe()).pid
        assert pid is not None
        return pid


def is_next(before: str, after: str) -> bool:
    """Tell whether a counter that had said `before` goes on with `after`."""
    # The moment may lie between a letter and the counter's increment.
    return (ord(after) - ord(before)) % (LAST - FIRST + 1) in (0, 1)


@dataclass(frozen=True, slots=True)
class Kind:
    """An implementation, and where it connects to."""

    name: str
    uri: str | None
    ports: frozenset[str] = frozenset({*PORTS, GUEST_AGENT, CONSOLE})

    @property
    def is_qemu(self) -> bool:
        """Whether words for QEMU's command line mean something to it."""
        return self.name != "virtualbox"

    @asynccontextmanager
    async def bench(
        self, code: bytes = COUNTER, extra_args: tuple[str, ...] = ()
    ) -> AsyncIterator[Bench]:
        """Make a machine, ready to be launched; it is removed in the end."""
        # Not tmp_path: its long name would not leave room for the sockets' paths.
        with tempfile.TemporaryDirectory(prefix="hb-") as name:
            root = Path(name)
            root.chmod(0o711)  # another user's QEMU reads the disk in there
            home = Home(root / "s", root / "r").open()
            spec = boot_spec("web", root, code, extra_args=extra_args)
            files = home.files("web")
            files.directory.mkdir()
            options = new_options(self.name, "web", self.uri)
            backend = open_backend(self.name, spec, files, options)
            await backend.prepare()
            try:
                yield Bench(backend, files)
            finally:
                await backend.kill()
                await backend.remove()
                await backend.close()


@pytest.fixture(params=IMPLEMENTATIONS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    if request.param == "libvirt":
        return Kind("libvirt", request.getfixturevalue("libvirtd").uri)
    if request.param == "qemu":
        return Kind("qemu", None)
    lab: Lab = request.getfixturevalue("lab")
    monkeypatch.setenv("HOSTCTL_VBOX_API", "manage" if request.param == "VBoxManage" else "api")
    for name, value in lab.settings.items():
        monkeypatch.setenv(name, value)
    return Kind("virtualbox", None, frozenset({SERIAL, CONSOLE}))


@pytest.fixture
async def bench(kind: Kind) -> AsyncIterator[Bench]:
    async with kind.bench() as bench:
        yield bench


class TestLife:
    async def test_launch_runs_the_guest_and_kill_ends_it(self, bench: Bench) -> None:
        assert await bench.backend.state() is MachineState.STOPPED
        assert bench.backend.uptime_s() is None
        await bench.backend.launch()
        assert await bench.backend.state() is MachineState.RUNNING
        assert bench.backend.uptime_s() is not None
        await bench.hears()
        for _ in range(2):
            await bench.backend.kill()
            assert await bench.backend.state() is MachineState.STOPPED
            assert await bench.backend.wait_gone(0)
        assert list(bench.files.runtime.parent.iterdir()) == []

    async def test_a_frozen_launch_runs_nothing_until_resumed(self, bench: Bench) -> None:
        await bench.backend.launch(frozen=True)
        assert await bench.is_silent()
        await bench.backend.resume()
        await bench.hears()

    async def test_pause_and_resume_are_repeatable(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.hears()
        for _ in range(2):
            await bench.backend.pause()
            assert await bench.is_silent()
        for _ in range(2):
            await bench.backend.resume()
            await bench.hears()

    async def test_reset_begins_anew_in_the_same_process(self, bench: Bench) -> None:
        await bench.backend.launch(stop_on_reboot=True)
        await bench.hears(5)
        pid = await bench.pid()
        await bench.backend.reset()
        async with asyncio.timeout(PATIENCE_S):
            while "0" not in await bench.hears(1):
                pass
        assert await bench.pid() == pid

    async def test_a_deaf_guest_survives_the_power_button(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.hears()
        await bench.backend.power_down()
        assert not await bench.backend.wait_gone(0.2)

    async def test_a_reboot_ends_a_launch_that_said_so(self, kind: Kind) -> None:
        async with kind.bench(REBOOTING) as bench:
            await bench.backend.launch(stop_on_reboot=True)
            assert await bench.backend.wait_gone(PATIENCE_S)
            assert await bench.backend.settle() is MachineState.STOPPED
            await bench.backend.launch()
            assert not await bench.backend.wait_gone(0.3)


class TestDeath:
    async def test_a_killed_process_is_a_crash_until_settled_and_killed(self, bench: Bench) -> None:
        await bench.backend.launch()
        os.kill(await bench.pid(), signal.SIGKILL)
        assert await bench.backend.wait_gone(PATIENCE_S)
        for _ in range(2):
            assert await bench.backend.state() is MachineState.CRASHED
            assert await bench.backend.settle() is MachineState.CRASHED
        assert not any(bench.files.runtime.parent.iterdir())
        await bench.backend.kill()
        assert await bench.backend.state() is MachineState.STOPPED

    async def test_an_orderly_end_is_none(self, bench: Bench) -> None:
        await bench.backend.launch()
        os.kill(await bench.pid(), signal.SIGTERM)
        assert await bench.backend.wait_gone(PATIENCE_S)
        assert await bench.backend.settle() is MachineState.STOPPED

    async def test_a_hung_process_is_killed(self, bench: Bench) -> None:
        await bench.backend.launch()
        os.kill(await bench.pid(), signal.SIGSTOP)
        await bench.backend.kill()
        assert await bench.backend.state() is MachineState.STOPPED

    async def test_a_refused_launch_quotes_the_hypervisor_and_leaves_nothing(
        self, kind: Kind
    ) -> None:
        if not kind.is_qemu:
            pytest.skip("not here: these are words for QEMU")
        async with kind.bench(extra_args=("-device", "nonesuch")) as bench:
            with pytest.raises(BootFailed, match="nonesuch") as caught:
                await bench.backend.launch()
            assert "'nonesuch' is not a valid device" in caught.value.stderr
            assert await bench.backend.state() is MachineState.STOPPED
            assert not any(bench.files.runtime.parent.iterdir())

    async def test_a_vanished_base_is_told_before_anything_runs(
        self, bench: Bench, kind: Kind
    ) -> None:
        if not kind.is_qemu:
            pytest.skip("not here: VirtualBox's machines have a copy")
        for path in bench.files.directory.parent.parent.parent.glob("*.img"):
            path.unlink()
        with pytest.raises(BootFailed, match="is gone"):
            await bench.backend.launch()
        assert await bench.backend.state() is MachineState.STOPPED


class TestSnapshots:
    async def test_a_load_brings_back_the_moment_frozen(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.hears(3)
        await bench.backend.pause()
        saved = (await bench.said())[-1]
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        await bench.backend.resume()
        await bench.hears(5)
        await bench.backend.load_snapshot("a", SNAPSHOT_S)
        assert await bench.is_silent()
        assert is_next(saved, await bench.resumes())

    async def test_a_snapshot_outlives_its_process(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.hears(3)
        await bench.backend.pause()
        saved = (await bench.said())[-1]
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        await bench.backend.kill()
        await bench.backend.launch(frozen=True)
        await bench.backend.load_snapshot("a", SNAPSHOT_S)
        assert is_next(saved, await bench.resumes())

    async def test_saving_lets_the_guest_go_on(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        await bench.hears()

    async def test_they_are_listed_oldest_first_with_their_pause(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.backend.save_snapshot("b", SNAPSHOT_S)
        await bench.backend.pause()
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        found = await bench.backend.snapshots()
        assert [(one.tag, one.paused, one.has_ram) for one in found] == [
            ("b", False, True),
            ("a", True, True),
        ]
        assert all(one.vm_state_bytes is None or one.vm_state_bytes > 0 for one in found)

    async def test_a_taken_tag_stays_whole(self, bench: Bench) -> None:
        await bench.backend.launch()
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        before = await bench.backend.snapshots()
        with pytest.raises(SnapshotExists):
            await bench.backend.save_snapshot("a", SNAPSHOT_S)
        assert await bench.backend.snapshots() == before
        await bench.backend.load_snapshot("a", SNAPSHOT_S)

    async def test_an_unknown_tag_leaves_the_guest_running(self, bench: Bench) -> None:
        await bench.backend.launch()
        for call in (bench.backend.load_snapshot, bench.backend.delete_snapshot):
            with pytest.raises(SnapshotNotFound):
                await call("a", SNAPSHOT_S)
        await bench.hears()

    @pytest.mark.parametrize("alive", [True, False])
    async def test_deleting_works_alive_and_at_rest(self, bench: Bench, alive: bool) -> None:
        await bench.backend.launch()
        await bench.backend.save_snapshot("a", SNAPSHOT_S)
        await bench.backend.save_snapshot("b", SNAPSHOT_S)
        if not alive:
            await bench.backend.kill()
        await bench.backend.delete_snapshot("a", SNAPSHOT_S)
        assert [one.tag for one in await bench.backend.snapshots()] == ["b"]


class TestReport:
    async def test_a_running_machine_says_who_it_is_and_that_it_has_no_network(
        self, bench: Bench
    ) -> None:
        await bench.backend.launch()
        report = await bench.backend.describe()
        assert report.nics == ()
        assert (report.accel, report.accel_reason) == ("tcg", "asked for")
        assert report.run_state == "running"
        (disk,) = report.disks
        assert disk.path.is_file()
        assert disk.virtual_bytes == 2 << 20
        assert disk.base is not None
        assert disk.base.read_bytes().startswith(COUNTER)

    async def test_a_stopped_machine_says_what_it_can(self, bench: Bench) -> None:
        report = await bench.backend.describe()
        assert (report.pid, report.nics, len(report.disks)) == (None, None, 1)

    async def test_every_port_has_a_socket(self, bench: Bench, kind: Kind) -> None:
        await bench.backend.launch()
        endpoints = await bench.backend.endpoints()
        assert kind.ports <= set(endpoints)
        for name, endpoint in endpoints.items():
            # libvirt keeps the guest agent's line, and guest control is none.
            if not isinstance(endpoint, Exchanging) and name != GUEST_CONTROL:
                (await endpoint.open()).close()
        assert bench.files.runtime.stat().st_mode & 0o777 == 0o700

    async def test_the_console_log_can_be_cut_while_the_guest_writes(
        self, bench: Bench, kind: Kind
    ) -> None:
        if kind.name == "libvirt":
            pytest.skip("not here: the log is libvirt's, whose virtlogd bounds it")
        if kind.name == "virtualbox":
            pytest.skip("not here: VirtualBox is told to begin another")
        await bench.backend.launch()
        await bench.hears(3)
        cut_log(bench.files.console_log, 0)
        await bench.hears(2)
        assert 0 < bench.files.console_log.stat().st_size < 10
        assert b"0" in previous(bench.files.console_log).read_bytes()

    async def test_two_may_look_while_one_works(self, bench: Bench) -> None:
        await bench.backend.launch()
        saving = bench.backend.save_snapshot("a", SNAPSHOT_S)
        first, second, _ = await asyncio.gather(
            bench.backend.describe(), bench.backend.describe(), saving
        )
        assert first.pid == second.pid

    @pytest.mark.parametrize(
        ("extra_args", "found"),
        [
            (("-device", "e1000,addr=0x1d"), "e1000"),
            (("-device", "virtio-net-pci,addr=0x1d"), "virtio-net-pci"),
            (USB_NIC, "usb-net"),
        ],
    )
    async def test_a_network_device_that_was_asked_for_is_shown(
        self, kind: Kind, extra_args: tuple[str, ...], found: str
    ) -> None:
        if not kind.is_qemu:
            pytest.skip("not here: these are words for QEMU")
        async with kind.bench(extra_args=extra_args) as bench:
            await bench.backend.launch(frozen=True)
            report = await bench.backend.describe()
            assert report.nics is not None
            assert [nic.kind for nic in report.nics] == [found]


async def test_a_port_of_a_dead_machine_refuses(bench: Bench) -> None:
    with pytest.raises(BackendError):
        await bench.backend.pause()
