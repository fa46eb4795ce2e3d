"""The policy of Machine, over a hypervisor and a guest that only remember."""

from pathlib import Path

import pytest

from hostctl import access
from hostctl.backends.interface import MachineSpec
from hostctl.errors import (
    BootFailed,
    DeadlineExceeded,
    MachineNotFound,
    MonitorError,
    SnapshotNotFound,
    WrongState,
)
from hostctl.lifecycle import MachineState
from hostctl.machine import Machine
from hostctl.state import Home, MachineFiles, write_json

from .fakes import FakeBackend, FakeChannel


class Bench:
    """One machine with its fakes."""

    def __init__(self, home: Home, files: MachineFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = MachineSpec("web", kernel=Path("/boot/vmlinuz"))
        self.files = files
        self.backend = FakeBackend(spec, files)
        self.channel = FakeChannel(self.backend)
        self.machine = Machine(home, spec, files, self.backend)
        monkeypatch.setattr(access, "open_channel", lambda *_: self.channel)

    @property
    def epoch(self) -> int:
        return self.files.pulse().epoch()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    home = Home(tmp_path / "s", tmp_path / "r").open()
    async with home.staging("web") as files:
        write_json(files.spec, {})
    return Bench(home, home.find("web"), monkeypatch)


class TestStart:
    async def test_waits_for_the_agent_and_then_allows_reboots(self, bench: Bench) -> None:
        steps: list[str] = []
        await bench.machine.start(progress=steps.append)
        assert bench.backend.calls == ["launch", "allow_reboot"]
        assert bench.channel.calls == ["connect"]
        assert steps == ["waiting for the agent"]

    async def test_is_repeatable(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        epoch = bench.epoch
        await bench.machine.start(wait=False)
        assert bench.backend.calls == ["launch"]
        assert bench.epoch == epoch

    async def test_cuts_the_timeline_before_the_guest_can_speak(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        assert bench.backend.epochs["launch"] == bench.epoch > 0

    async def test_a_paused_machine_is_not_started(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.pause()
        with pytest.raises(WrongState) as caught:
            await bench.machine.start()
        assert caught.value.hint == "hostctl resume web"

    async def test_a_silent_guest_is_left_running_and_quoted(self, bench: Bench) -> None:
        bench.channel.is_mute = True
        with pytest.raises(BootFailed, match="did not answer within 5 s") as caught:
            await bench.machine.start(timeout_s=5)
        assert "Kernel panic" in str(caught.value)
        assert caught.value.stderr == "qemu: warning"
        assert await bench.machine.state() is MachineState.RUNNING

    async def test_an_ended_guest_is_told_apart(self, bench: Bench) -> None:
        bench.channel.is_mute = True
        await bench.machine.start(wait=False)
        bench.backend.is_alive = False
        with pytest.raises(BootFailed, match="ended before its agent answered"):
            await bench.machine._ready(5)


class TestStop:
    @pytest.mark.parametrize("way", ["button", "agent"])
    async def test_asks_in_turn(self, bench: Bench, way: str) -> None:
        bench.backend.heeds = {way}
        await bench.machine.start(wait=False)
        before = bench.epoch
        await bench.machine.stop(timeout_s=1)
        assert bench.backend.calls == ["launch", "power_down", "kill"]
        assert any("poweroff" in call for call in bench.channel.calls) is (way == "agent")
        assert bench.epoch > before

    async def test_kills_a_guest_that_heeds_nothing(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.backend.heeds = set()
        await bench.machine.start(wait=False)
        await bench.machine.stop(timeout_s=0.1)
        assert await bench.machine.state() is MachineState.STOPPED
        assert "killed" in caplog.text

    async def test_force_asks_nobody(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.stop(force=True)
        assert bench.backend.calls == ["launch", "kill"]

    async def test_a_hung_hypervisor_is_killed_all_the_same(self, bench: Bench) -> None:
        bench.backend.refuses = {"power_down"}
        bench.backend.heeds = set()
        await bench.machine.start(wait=False)
        await bench.machine.stop(timeout_s=0.1)
        assert await bench.machine.state() is MachineState.STOPPED

    async def test_is_repeatable_and_cleans_up_a_crash(self, bench: Bench) -> None:
        bench.backend.has_crashed = True
        for _ in range(2):
            await bench.machine.stop()
            assert await bench.machine.state() is MachineState.STOPPED


class TestPause:
    async def test_is_known_before_it_is_so_and_until_it_is_over(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        for _ in range(2):
            await bench.machine.pause()
            assert await bench.machine.state() is MachineState.PAUSED
        for _ in range(2):
            await bench.machine.resume()
            assert await bench.machine.state() is MachineState.RUNNING

    async def test_a_refused_pause_is_no_pause(self, bench: Bench) -> None:
        bench.backend.refuses = {"pause"}
        await bench.machine.start(wait=False)
        with pytest.raises(MonitorError):
            await bench.machine.pause()
        assert await bench.machine.state() is MachineState.RUNNING

    async def test_the_clock_is_set_once_the_guest_goes_on(self, bench: Bench) -> None:
        await bench.machine.start()
        await bench.machine.pause()
        await bench.machine.resume()
        assert bench.channel.calls[-2:] == ["set_clock", "feed_entropy"]

    async def test_a_guest_that_never_answered_is_not_waited_for(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.pause()
        await bench.machine.resume()
        assert bench.channel.calls == []

    async def test_a_paused_guest_is_not_reached(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.pause()
        with pytest.raises(WrongState):
            await bench.machine.ping()


class TestSnapshots:
    async def test_a_restore_cuts_before_and_after_and_only_then_lets_the_guest_run(
        self, bench: Bench
    ) -> None:
        await bench.machine.start()
        await bench.machine.save_snapshot("a")
        before = bench.epoch
        await bench.machine.restore_snapshot("a")
        assert bench.backend.calls[-2:] == ["load a", "resume"]
        assert before < bench.backend.epochs["load a"] < bench.backend.epochs["resume"]
        assert bench.channel.calls[-2:] == ["set_clock", "feed_entropy"]

    async def test_a_stopped_machine_is_started_frozen(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.save_snapshot("a")
        await bench.machine.stop(force=True)
        await bench.machine.restore_snapshot("a")
        assert bench.backend.calls[-3:] == ["launch frozen", "load a", "resume"]

    async def test_a_failed_load_into_a_stopped_machine_leaves_it_stopped(
        self, bench: Bench
    ) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.save_snapshot("a")
        await bench.machine.stop(force=True)
        bench.backend.refuses = {"load a"}
        with pytest.raises(MonitorError):
            await bench.machine.restore_snapshot("a")
        assert await bench.machine.state() is MachineState.STOPPED

    async def test_what_was_saved_paused_is_paused_again(self, bench: Bench) -> None:
        await bench.machine.start()
        await bench.machine.pause()
        await bench.machine.save_snapshot("a")
        await bench.machine.resume()
        bench.channel.calls.clear()
        await bench.machine.restore_snapshot("a")
        assert await bench.machine.state() is MachineState.PAUSED
        assert set(bench.channel.calls) == {"close"}

    async def test_an_unknown_tag_changes_nothing(self, bench: Bench) -> None:
        before = bench.epoch
        with pytest.raises(SnapshotNotFound):
            await bench.machine.restore_snapshot("a")
        assert bench.backend.calls == []
        assert bench.epoch == before

    async def test_a_machine_that_dies_meanwhile_is_started_into_the_moment(
        self, bench: Bench
    ) -> None:
        await bench.machine.start(wait=False)
        await bench.machine.save_snapshot("a")
        bench.backend.dies_at = {"load"}
        bench.backend.calls.clear()
        await bench.machine.restore_snapshot("a")
        assert bench.backend.calls == ["launch frozen", "load a", "resume"]
        assert await bench.machine.state() is MachineState.RUNNING

    async def test_a_mute_guest_does_not_fail_the_restore(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        await bench.machine.start()
        await bench.machine.save_snapshot("a")
        bench.channel.is_mute = True
        await bench.machine.restore_snapshot("a")
        assert "not refreshed" in caplog.text

    async def test_a_stopped_machine_cannot_be_saved(self, bench: Bench) -> None:
        with pytest.raises(WrongState):
            await bench.machine.save_snapshot("a")


class TestTheRest:
    async def test_a_living_machine_is_deleted_only_by_force(self, bench: Bench) -> None:
        await bench.machine.start(wait=False)
        with pytest.raises(WrongState):
            await bench.machine.delete()
        await bench.machine.delete(force=True)
        assert not bench.files.directory.exists()
        with pytest.raises(MachineNotFound):
            await bench.machine.start()

    async def test_waiting_for_a_state_ends_in_time(self, bench: Bench) -> None:
        await bench.machine.wait(MachineState.STOPPED, timeout_s=5)
        with pytest.raises(DeadlineExceeded, match=r"is stopped, not running, after 0\.01 s"):
            await bench.machine.wait(MachineState.RUNNING, timeout_s=0.01)

    async def test_a_reset_cuts_the_timeline(self, bench: Bench) -> None:
        await bench.machine.start()
        before = bench.epoch
        await bench.machine.reset()
        assert bench.epoch > before
        assert bench.channel.calls[-2:] == ["close", "connect"]
