import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostctl.errors import BackendError, Busy, ConfigError, MachineExists, MachineNotFound
from hostctl.state import (
    Home,
    cut_log,
    locked,
    previous,
    put_aside,
    read_json,
    tail,
    write_atomic,
    write_json,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "state", tmp_path / "run").open()


async def make(home: Home, name: str) -> None:
    async with home.staging(name) as files:
        write_json(files.spec, {})


class TestHome:
    def test_the_environment_names_both_directories(self) -> None:
        home = Home.default({"HOSTCTL_STATE_DIR": "/a", "HOSTCTL_RUNTIME_DIR": "/b"})
        assert (home.state, home.runtime) == (Path("/a"), Path("/b"))

    def test_xdg_comes_second_and_the_home_last(self) -> None:
        xdg = Home.default({"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r", "HOME": "/h"})
        assert (xdg.state, xdg.runtime) == (Path("/s/hostctl"), Path("/r/hostctl"))
        assert Home.default({"HOME": "/h"}).state == Path("/h/.local/state/hostctl")

    def test_directories_are_made_private(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "state", tmp_path / "run").open()
        for path in (home.state, home.runtime, home.machines):
            assert path.stat().st_mode & 0o777 == 0o700

    def test_an_open_directory_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run").chmod(0o1777)  # as /tmp is
        with pytest.raises(ConfigError, match="open to other users"):
            Home(tmp_path / "state", tmp_path / "run").open()
        assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o1777

    def test_a_planted_link_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match="not a directory of user"):
            Home(tmp_path / "state", tmp_path / "run").open()

    def test_a_socket_path_that_cannot_fit_is_told_before_anything_is_made(
        self, tmp_path: Path
    ) -> None:
        home = Home(tmp_path / "state", tmp_path / ("r" * 90))
        with pytest.raises(ConfigError, match="the kernel allows 107") as caught:
            home.check_sockets("web")
        assert caught.value.hint is not None
        assert "HOSTCTL_RUNTIME_DIR" in caught.value.hint

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".new-1", "nobody"])
    def test_what_is_not_there_is_not_found(self, home: Home, name: str) -> None:
        with pytest.raises(MachineNotFound):
            home.find(name)


class TestStaging:
    async def test_a_machine_appears_whole(self, home: Home) -> None:
        async with home.staging("web") as files:
            write_json(files.spec, {"a": 1})
            assert home.names() == ()
        assert home.names() == ("web",)
        assert read_json(home.find("web").spec) == {"a": 1}

    async def test_a_failure_leaves_nothing(self, home: Home) -> None:
        async def fail() -> None:
            async with home.staging("web") as files:
                write_json(files.spec, {})
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await fail()
        assert os.listdir(home.machines) == []

    async def test_an_existing_machine_is_not_touched(self, home: Home) -> None:
        await make(home, "web")
        with pytest.raises(MachineExists):
            await make(home, "web")
        assert home.names() == ("web",)

    async def test_leftovers_of_killed_processes_are_swept(self, home: Home) -> None:
        (home.machines / ".new-dead").mkdir()
        (home.machines / ".gone-dead").mkdir()
        assert home.names() == ()
        await make(home, "web")
        assert os.listdir(home.machines) == ["web"]

    async def test_removal_takes_the_sockets_too_and_may_be_repeated(self, home: Home) -> None:
        await make(home, "web")
        files = home.find("web")
        files.runtime.mkdir()
        for _ in range(2):
            await home.remove(files)
        assert os.listdir(home.machines) == os.listdir(home.runtime) == []


class TestLock:
    async def test_the_second_waits_for_the_first(self, tmp_path: Path) -> None:
        order = []

        async def hold(name: str) -> None:
            async with locked(tmp_path / "lock", "it", name, 5):
                order.append(f"{name} in")
                await asyncio.sleep(0)
                order.append(f"{name} out")

        await asyncio.gather(hold("a"), hold("b"))
        assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])

    async def test_busy_names_the_holder(self, tmp_path: Path) -> None:
        async with locked(tmp_path / "lock", "it", "start", 0):
            with pytest.raises(Busy, match=f"process {os.getpid()} \\(start\\)") as caught:
                async with locked(tmp_path / "lock", "it", "stop", 0):
                    pass
        assert caught.value.holder_pid == os.getpid()

    async def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        code = (
            "import fcntl,os,signal,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,fcntl.LOCK_EX);"
            "os.kill(os.getpid(),signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=20)
        async with locked(path, "it", "start", 0):
            pass

    async def test_a_lock_whose_machine_was_deleted_is_no_lock(self, home: Home) -> None:
        await make(home, "web")
        files = home.find("web")

        async def wait() -> None:
            async with locked(files.lock, "it", "start", 5):
                pass

        async with locked(files.lock, "it", "delete", 0):
            waiting = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            await home.remove(files)
        with pytest.raises(FileNotFoundError):
            await waiting


class TestPulse:
    async def test_an_epoch_only_grows_also_over_a_new_machine_of_the_name(
        self, home: Home
    ) -> None:
        seen = [home.files("web").pulse().epoch()]
        for _ in range(2):
            await make(home, "web")
            pulse = home.find("web").pulse()
            for _ in range(3):
                pulse.cut()
                seen.append(pulse.epoch())
            await home.remove(home.find("web"))
        assert seen == sorted(set(seen))

    async def test_suspension_is_seen_by_every_process_and_repeatable(self, home: Home) -> None:
        await make(home, "web")
        pulse, other = home.find("web").pulse(), home.find("web").pulse()
        for value in (True, True, False, False):
            pulse.set_suspended(value)
            assert other.suspended() is value


class TestFiles:
    def test_a_failed_write_leaves_the_old_content_and_no_litter(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_atomic(path, b"old")
        with pytest.raises(TypeError):
            write_atomic(path, "not bytes")  # type: ignore[arg-type]  # the failure wanted
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_file_is_private(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "file", b"x")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("text", ["{", "[]", "\xff"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.json").write_text(text, "latin-1")
        with pytest.raises(BackendError, match=r"run\.json is damaged"):
            read_json(tmp_path / "run.json")

    def test_a_log_is_quoted_from_its_end_without_control_characters(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"x" * 100_000 + b"\none\r\n\x1b[31mtwo\x07\n\n\xffthree\n\n")
        assert tail(path, 3) == "one\n[31mtwo\n\ufffdthree"
        assert tail(tmp_path / "nothing", 3) == ""

    def test_a_log_is_cut_under_its_writer(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        with path.open("ab", buffering=0) as writer:
            writer.write(b"x" * 100_000 + b"end")
            cut_log(path, 200_000)
            assert path.stat().st_size == 100_003
            cut_log(path, 50_000)
            writer.write(b"new")
        assert path.read_bytes() == b"new"
        assert previous(path).read_bytes().endswith(b"xend")
        put_aside(path)
        assert not path.exists()
        assert previous(path).read_bytes() == b"new"
        put_aside(path)
