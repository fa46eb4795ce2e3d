#!/usr/bin/env python3
"""The main job, the whole way: a machine with no network, and everything hostctl does with it.

Run it with `make demo`. It works in a folder of its own under /tmp, touches none of your machines,
and leaves nothing behind, whatever goes wrong on the way.
"""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hostctl_images
from hostctl.backends.interface import MachineSpec
from hostctl.lifecycle import MachineState
from hostctl.state import Home
from hostctl.sync import Controller, Machine

NAME = "demo"
BIG_MIB = 64
STRANGE = b"/root/a name with spaces,\na newline and \xff"


def main() -> int:
    """Run the demo; 0 when every step did what it says."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    began = time.monotonic()
    print("hostctl demo: one machine, no network, commands and files through a virtio port\n")
    try:
        with _own_home() as home, Controller(home) as controller:
            Demo(controller).run()
    except KeyboardInterrupt:
        print("\ninterrupted; the machine and its folder are gone", file=sys.stderr)
        return 130
    except Exception as err:
        print(f"\ndemo failed: {type(err).__name__}: {err}", file=sys.stderr)
        if hint := getattr(err, "hint", None):
            print(f"next: {hint}", file=sys.stderr)
        return 1
    print(f"\nall of it in {time.monotonic() - began:.1f} s; nothing is left behind")
    return 0


class Demo:
    """The steps, in order. Each returns what it saw, or raises."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.machine: Machine
        self.folder = controller.home.state

    def run(self) -> None:
        """Take every step, print each with its time, and always remove the machine."""
        print(f"     {'took':>8}  {'step':<36}  what came back")
        print(f"     {'-' * 8}  {'-' * 36}  {'-' * 40}")
        try:
            for at, (what, step) in enumerate(self.steps(), 1):
                began = time.monotonic()
                saw = step()
                print(
                    f"{at:>3}  {_took(time.monotonic() - began):>8}  {what:<36}  {saw}", flush=True
                )
        finally:
            if NAME in {machine.name for machine in self.controller.machines()}:
                self.controller.machine(NAME).delete(force=True)

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the steps by their titles."""
        return [
            ("build the image, or find it built", self.image),
            ("create a machine", self.create),
            ("start it until it answers", self.start),
            ("prove that there is no network", self.prove),
            ("one round trip", self.ping),
            ("run a command", self.command),
            ("stdout, stderr and status, apart", self.streams),
            ("a command that dies by a signal", self.death),
            ("talk to a command while it runs", self.conversation),
            ("stop a command by a signal", self.interrupt),
            ("a strange file name, in and out", self.strange_file),
            (f"put {BIG_MIB} MiB, compare sha256", self.put_big),
            (f"get {BIG_MIB} MiB, compare sha256", self.get_big),
            ("pause", self.pause),
            ("resume, and run a command", self.resume),
            ("snapshot memory while it runs", self.snapshot),
            ("delete a file", self.change),
            ("restore: the file is back", self.restore),
            ("stop", self.stop),
            ("delete the machine", self.delete),
        ]

    def image(self) -> str:
        image = hostctl_images.build("tiny")
        return (
            f"{image.name}, kernel and initrd {image.size_bytes / 2**20:.1f} MiB, made without root"
        )

    def create(self) -> str:
        self.machine = self.controller.create(MachineSpec(NAME, image="tiny", memory_mib=384))
        return "384 MiB, 1 CPU, no NIC"

    def start(self) -> str:
        self.machine.start()
        report = self.machine.describe()
        return f"QEMU process {report.pid}, {report.accel}"

    def prove(self) -> str:
        report = self.machine.describe()
        _expect(report.nics == (), f"the hypervisor shows NICs: {report.nics}")
        inside = self.machine.exec("ls", "/sys/class/net", check=True).stdout.split()
        _expect(inside == [b"lo"], f"inside there is {inside}")
        return "QEMU lists no NIC; inside, /sys/class/net has only lo"

    def ping(self) -> str:
        return f"{min(self.machine.ping() for _ in range(10)) * 1000:.1f} ms, best of ten"

    def command(self) -> str:
        result = self.machine.exec("uname", "-srm", check=True)
        return result.stdout.decode().strip()

    def streams(self) -> str:
        result = self.machine.shell("echo to stdout; echo to stderr >&2; exit 3")
        seen = (result.stdout, result.stderr, result.exit.code)
        _expect(seen == (b"to stdout\n", b"to stderr\n", 3), f"came back: {seen}")
        return "each on its own, exit status 3"

    def death(self) -> str:
        result = self.machine.shell("kill -SEGV $$")
        _expect(result.exit.signal == signal.SIGSEGV, f"came back: {result.exit}")
        return "killed by SIGSEGV, told apart from an exit status"

    def conversation(self) -> str:
        with self.machine.process("cat", stdin=True) as process:
            process.write(b"ping\n")
            first = process.read()
            process.write(b"pong\n")
            second = process.read()
            process.close_stdin()
            status = process.wait()
        _expect((first, second) == ((1, b"ping\n"), (1, b"pong\n")), f"heard {first}, {second}")
        _expect(status.ok, str(status))
        return "each line came back before the next was sent"

    def interrupt(self) -> str:
        with self.machine.process("sleep", "600") as process:
            process.signal("TERM")
            status = process.wait()
        _expect(status.signal == signal.SIGTERM, f"came back: {status}")
        return "sleep 600 ended by SIGTERM"

    def strange_file(self) -> str:
        content = os.urandom(1000) + b"\0\n\r"
        self.machine.put(content, STRANGE)
        _expect(self.machine.read(STRANGE) == content, "the content differs")
        return "spaces, a newline and a byte that is no UTF-8"

    def put_big(self) -> str:
        source = self.folder / "source"
        with source.open("wb") as file:
            for _ in range(BIG_MIB):
                file.write(os.urandom(2**20))
        began = time.monotonic()
        self.machine.put(source, "/tmp/big")
        took_s = time.monotonic() - began
        inside = self.machine.exec("sha256sum", "/tmp/big", check=True).stdout.split()[0].decode()
        _expect(inside == _sha256(source), "the guest's sha256 differs")
        return f"{BIG_MIB / took_s:.0f} MiB/s, and the guest's sha256 is ours"

    def get_big(self) -> str:
        back = self.folder / "back"
        began = time.monotonic()
        self.machine.get("/tmp/big", back)
        took_s = time.monotonic() - began
        _expect(_sha256(back) == _sha256(self.folder / "source"), "the content differs")
        self.machine.exec("rm", "/tmp/big", check=True)
        return f"{BIG_MIB / took_s:.0f} MiB/s, and the sha256 is the same"

    def pause(self) -> str:
        self.machine.pause()
        _expect(self.machine.state() is MachineState.PAUSED, "it still runs")
        return "frozen"

    def resume(self) -> str:
        self.machine.resume()
        self.machine.exec("true", check=True)
        return "answers again"

    def snapshot(self) -> str:
        self.machine.put(b"precious", "/root/precious")
        self.machine.save_snapshot("before")
        (saved,) = self.machine.list_snapshots()
        return f"{saved.tag}, {(saved.vm_state_bytes or 0) / 2**20:.0f} MiB"

    def change(self) -> str:
        self.machine.exec("rm", "/root/precious", check=True)
        _expect(not self.machine.exec("test", "-e", "/root/precious").exit.ok, "it is still there")
        return "gone"

    def restore(self) -> str:
        self.machine.restore_snapshot("before")
        _expect(self.machine.read("/root/precious") == b"precious", "the content differs")
        return "precious"

    def stop(self) -> str:
        began = time.monotonic()
        self.machine.stop(timeout_s=60)
        _expect(self.machine.state() is MachineState.STOPPED, "it still runs")
        _expect(time.monotonic() - began < 60, "it had to be killed")
        return "it powered itself off"

    def delete(self) -> str:
        self.machine.delete()
        _expect(self.controller.machines() == (), "something is left")
        return "no machine, no process, no file"


@contextmanager
def _own_home() -> Iterator[Home]:
    """Give the demo folders of its own; /tmp keeps the socket paths under their 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="hostctl-demo-", dir="/tmp"))
    try:
        yield Home(folder / "state", folder / "run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _expect(claim: bool, otherwise: str) -> None:
    if not claim:
        raise RuntimeError(otherwise)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
