"""Templates, clones and pools when files go, disks fill and everything is killed at every step."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.errors import BackendError, Busy, HostctlError, TemplateUnfit
from hostctl.lifecycle import MachineState
from hostctl.state import Home
from tests.homes import emptied, environment

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800 if "HOSTCTL_NIGHTLY" in os.environ else 300)]

EVERY_STEP = "HOSTCTL_NIGHTLY" in os.environ
STRIDE = 1 if EVERY_STEP else 17  # of 55 to 95 steps: each kill and what mends it takes a second


@pytest.fixture
async def controller(template_home: Home) -> AsyncIterator[Controller]:
    async with emptied(template_home, keep=["base"]) as controller:
        yield controller


@pytest.fixture
def victim(template_home: Home) -> Path:
    """Return the folder of a template that may be damaged: a copy of `base`."""
    base, folder = template_home.templates / "base", template_home.templates / "victim"
    subprocess.run(["cp", "-a", "--sparse=always", base, folder], check=True)
    found = (folder / "ram").stat()
    record = json.loads((folder / "template.json").read_text())
    record["recipe"] = None
    record["ram"] = {
        "bytes": found.st_size,
        "inode": found.st_ino,
        "mtime_ns": found.st_mtime_ns,
    }
    (folder / "template.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_clones_go_on_without_their_templates_ram_and_new_ones_are_refused(
    controller: Controller, victim: Path, how: str
) -> None:
    clone = await controller.clone("victim", "clone")
    ram = victim / "ram"
    if how == "replaced":
        (victim / "other").write_bytes(b"")
        os.truncate(victim / "other", ram.stat().st_size)
        (victim / "other").rename(ram)
    else:
        ram.unlink()
    assert await clone.read("/tmp/warm") == b"warm\n"
    await clone.shell("cat /bin/busybox >/tmp/busybox && cmp /bin/busybox /tmp/busybox", check=True)
    with pytest.raises(TemplateUnfit, match="is gone" if how == "deleted" else "not those"):
        await controller.clone("victim", "next")
    assert [machine.name for machine in controller.machines()] == ["clone"]


async def test_a_clone_whose_templates_ram_was_cut_off_fails_clearly(
    controller: Controller, victim: Path
) -> None:
    clone = await controller.clone("victim", "clone")
    os.truncate(victim / "ram", 0)  # its pages are gone: the next look at one kills QEMU
    with pytest.raises(HostctlError):
        await clone.shell("find / -type f | xargs cat >/dev/null", timeout_s=20)
    assert await clone.state() is MachineState.CRASHED
    with pytest.raises(TemplateUnfit, match="not those"):
        await controller.clone("victim", "next")
    assert [machine.name for machine in controller.machines()] == ["clone"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
async def test_a_full_disk_is_told_and_nothing_is_left() -> None:
    with small_home(size_mib=110) as home:
        async with Controller(home) as controller:
            spec = MachineSpec("any", image="tiny", accel="tcg", memory_mib=128)
            with pytest.raises(BackendError, match=r"may need 128 MiB .* are free"):
                await controller.create_template("t", spec)
            spec = MachineSpec("any", image="tiny", accel="tcg", memory_mib=96)
            making = asyncio.ensure_future(controller.create_template("t", spec))
            async with asyncio.timeout(60):
                while not list(home.templates.glob(".new-*/ram")):  # noqa: ASYNC110 a file
                    await asyncio.sleep(0.02)
            with contextlib.suppress(OSError), (home.state / "junk").open("wb") as junk:
                while True:
                    junk.write(bytes(1 << 20))
            with pytest.raises(BackendError, match="is full"):
                await making
            assert list(home.templates.iterdir()) == []
    assert not processes(home)


@contextlib.contextmanager
def small_home(size_mib: int) -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="hf-") as root:
        options = f"size={size_mib}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", root], check=True)
        try:
            yield Home(Path(root) / "s", Path(root) / "r")
        finally:
            subprocess.run(["umount", "-l", root], check=True)


async def test_two_creates_at_once_make_one_template(controller: Controller) -> None:
    await controller.clone("base", "source")
    made = await asyncio.gather(
        *(controller.create_template_from("two", "source") for _ in range(2)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in made) == ["Busy", "Template"]
    assert any(isinstance(each, Busy) for each in made)
    await controller.clone("two", "clone")


async def test_a_clone_killed_at_any_step_is_swept(controller: Controller) -> None:
    for step in steps(controller.home, "clone", "base", "web"):
        killed(controller.home, step, "clone", "base", "web")
        await controller.sweep_throwaways()
        assert controller.machines() == (), step
        assert not processes(controller.home), step
    await controller.clone("base", "web")


async def test_a_run_killed_at_any_step_is_swept(controller: Controller) -> None:
    words = ("run", "base", "--", "true")
    for step in steps(controller.home, *words):
        killed(controller.home, step, *words)
        await controller.sweep_throwaways()
        assert controller.machines() == (), step
        assert not processes(controller.home), step


async def test_a_pool_filled_or_taken_from_by_what_is_killed_stays_whole(
    controller: Controller,
) -> None:
    home, fill = controller.home, ("pool", "create", "base", "--size", "1")
    for step in steps(home, *fill):
        killed(home, step, *fill)
        await controller.create_pool("base", 1)
        assert len(home.waiting()) == 1, step
        await controller.delete_pool("base")
        assert not processes(home), step
    await controller.create_pool("base", 1)
    take = ("run", "base", "--", "true")
    for step in steps(home, *take):
        await controller.fill_pool("base")
        killed(home, step, *take)
        await controller.sweep_throwaways()
        assert controller.machines() == (), step
    await controller.delete_pool("base")
    await controller.sweep_throwaways()
    assert not processes(home)


async def test_a_template_killed_at_any_step_leaves_its_machine_and_its_name(
    controller: Controller,
) -> None:
    home, words = controller.home, ("template", "create", "new", "--from", "source")
    source = await controller.clone("base", "source")
    for step in steps(home, *words):
        killed(home, step, *words)
        await source.exec("true", check=True, timeout_s=20)
        with contextlib.suppress(HostctlError):
            await controller.delete_template("new")
    await controller.create_template_from("new", "source")
    await controller.clone("new", "web")
    assert await source.list_snapshots() == ()
    assert {each.name for each in home.templates.iterdir()} == {"base", "new"}
    assert len(processes(home)) == 2


def steps(home: Home, *words: str) -> range:
    """Run a command to its end, undo it, and return the numbers of the steps to kill it at."""
    told = hostctl(home, 0, *words)
    assert told.returncode == 0, told.stderr
    undo(home, *words)
    count = len(re.findall(r"^\d+ \S+ \(", told.stderr, re.M))
    assert count > 20
    return range(4, count + 1, STRIDE)


def undo(home: Home, *words: str) -> None:
    undoing = {
        "clone": ("delete", "--force", "web"),
        "pool": ("pool", "delete", "base"),
        "template": ("template", "delete", "new"),
        "run": ("list",),
    }
    done = hostctl(home, 0, *undoing[words[0]])
    assert done.returncode == 0, done.stderr


def killed(home: Home, step: int, *words: str) -> None:
    """Kill a command before its step; one that ends sooner, for counts differ, is undone."""
    done = hostctl(home, step, *words)
    if done.returncode == 0:
        undo(home, *words)
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr


def hostctl(home: Home, step: int, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tests.vm.killed", str(step), *words]
    where = Path(__file__).parents[2]
    return subprocess.run(argv, env=environment(home), cwd=where, capture_output=True, text=True)


def processes(home: Home) -> list[int]:
    """Return the QEMUs of a home that live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(home.state).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
