"""A machine of the lab, made and moved by VBoxManage alone: what tests of channels stand on.

It knows nothing of hostctl's back end, so that a fault there is not one here. A live snapshot is
taken before the guest's services start; each restore then has fresh ones within four seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .laboratory import Lab

__all__ = ["Console", "LabMachine", "park"]

BOOT_S: Final = 120  # 13 s on an idle core
PATIENCE_S: Final = 30
BASE: Final = "base"
# No network, no device that the guest does not need, and the only engine that needs no driver.
OPTIONS: Final = (
    "--memory=96",
    "--cpus=1",
    "--vm-execution-engine=interpreter",
    "--x86-x2apic=on",
    "--nic1=none",
    "--graphicscontroller=none",
    "--audio-enabled=off",
    "--usb-ohci=off",
    "--mouse=ps2",
    "--keyboard=ps2",
    "--boot1=dvd",
    "--boot2=none",
    "--boot3=none",
    "--boot4=none",
    "--firmware-boot-menu=disabled",
    "--firmware-logo-fade-in=off",
    "--firmware-logo-fade-out=off",
    "--firmware-logo-display-time=0",
)


class Console:
    """The host's end of ttyS0, always read: unread, it stalls the guest."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._text = bytearray()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def expect(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the guest has said `text`."""
        with self._changed:
            if not self._changed.wait_for(lambda: text.encode() in self._text, timeout_s):
                raise TimeoutError(f"no {text!r} on the console, but {bytes(self._text[-2000:])!r}")

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while data := self._receive():
            with self._changed:
                self._text += data
                self._changed.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""


_made: list[LabMachine] = []


def park() -> None:
    """End all machines: one that only waits takes a quarter of a core from the others."""
    for machine in _made:
        machine.kill()


class LabMachine:
    """One machine. A context manager, which makes it, and removes it whatever state it is in."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.console_path = lab.folder / f"{name}.0"
        self.agent_path = lab.folder / f"{name}.1"  # ttyS1, our agent's
        self._console: Console | None = None
        self._words: str | None = None  # that its guest was told at its last restore

    def __enter__(self) -> LabMachine:
        self._manage("createvm", f"--name={self.name}", "--ostype=Linux26_64", "--register")
        self._modify(*OPTIONS)
        for number, base, irq, path in (
            ("1", "0x3f8", "4", self.console_path),
            ("2", "0x2f8", "3", self.agent_path),
        ):
            self._modify(f"--uart{number}", base, irq)
            self._modify(f"--uart-mode{number}", "server", str(path))
        self._manage("storagectl", self.name, "--name", "ide", "--add", "ide")
        _made.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        _made.remove(self)
        with contextlib.suppress(RuntimeError):  # it goes with the lab anyway
            self._manage("unregistervm", self.name, "--delete")

    def boot(self, words: str = "") -> None:
        """Boot, wait where services would start, take the snapshot, and go on with `words`."""
        self._manage(
            *("storageattach", self.name, "--storagectl", "ide", "--port", "0", "--device", "0"),
            *("--type", "dvddrive", "--medium", str(self.lab.waiting_iso)),
        )
        self.start()
        self.console.expect("READY", BOOT_S)
        self._manage("snapshot", self.name, "take", BASE, "--live")
        self._say(words)

    def restore(self, words: str = "") -> None:
        """Begin anew where the services start; `words` are for the guest's init."""
        self.kill()
        self._manage("snapshot", self.name, "restore", BASE)
        self.start()
        self._say(words)

    def ensure(self, words: str = "") -> None:
        """The same, unless it runs and its guest was told these words."""
        if self._words != words or not self.pids():
            self.restore(words)

    def start(self) -> None:
        """Start it, or resume it from its saved state, and read its console."""
        self._manage("startvm", self.name, "--type=headless")
        self._console = Console(self.console_path)

    @property
    def console(self) -> Console:
        """The console of the running machine."""
        assert self._console is not None
        return self._console

    @property
    def state(self) -> str:
        """Its state in VBoxManage's words."""
        return self.facts()["VMState"]

    def facts(self) -> dict[str, str]:
        """Return all that VBoxManage knows of it."""
        text = self._manage("showvminfo", self.name, "--machinereadable")
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return {key: value.strip('"') for key, value in lines.items()}

    def await_additions(self) -> None:
        """Wait until the guest's VBoxService has reported. A session opened before hangs 30 s."""
        self._await(lambda: int(self.facts().get("GuestAdditionsRunLevel", 0)) >= 2, "additions")

    def pids(self) -> list[int]:
        """Return the processes that run it, by the host's numbers: one or none."""
        return self.lab.pids("VBoxHeadless", self.name)

    def kill(self) -> None:
        """End its process as a crash would, and wait until VirtualBox has noticed."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        if self._console:
            self._console.close()
            self._console = None
        self._words = None
        ends = ("poweroff", "aborted", "aborted-saved", "saved")
        self._await(lambda: self._state_of_dying() in ends, "an end")

    def _state_of_dying(self) -> str:
        """Return its state, "" while VirtualBox knows a process that is there no more."""
        try:
            return self.state
        except RuntimeError as err:
            if "direct session" not in str(err):
                raise
            return ""

    def _say(self, words: str) -> None:
        self.console.say(words)
        self._words = words

    def _await(self, has_come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not has_come():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is {self.state}, and waits for {what}")
            time.sleep(0.05)

    def _modify(self, *words: str) -> None:
        self._manage("modifyvm", self.name, *words)

    def _manage(self, *words: str) -> str:
        return self.lab.manage(*words)


def _connected(path: Path) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
        except OSError:
            line.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return line
