"""Which accelerator a machine gets, decided by a bounded trial boot.

/dev/kvm may be there, open, create a VM, and still hang a stock guest (seen under nested
virtualisation). So `auto` boots the machine's own kernel with the accelerator, once, and believes
it when the guest has said something on its console within the deadline. The verdict is kept until
the host's kernel, QEMU or the device changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import procs
from ..errors import BackendError
from ..state import MachineFiles, read_json, write_json
from .interface import MachineSpec, Progress

__all__ = ["BINARY", "Choice", "accel_arguments", "choose", "trial"]

logger = logging.getLogger(__name__)

BINARY = "qemu-system-x86_64"
KVM = Path("/dev/kvm")
TRIAL_S = 8.0  # a working accelerator prints within 1-2 s, a loaded host within 4; a hung one never
TRIAL_MEMORY_MIB = 256
POLL_S = 0.02
MARKER = b"K"

# A boot sector for machines that boot from a disk: says K on COM1 for ever, so the verdict cannot
# be missed.   mov dx,0x3fd; in al,dx; test al,0x20; jz -5; mov dx,0x3f8; mov al,'K'; out dx,al;
# jmp start
BOOT_SECTOR = bytes.fromhex("bafd03eca82074fbbaf803b04beeebf1").ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Choice:
    """An accelerator and why it was chosen."""

    accel: str
    reason: str


def accel_arguments(accel: str, cpus: int) -> list[str]:
    """Return the accelerator and what is fast with it.

    TCG: the default cpu model; `max` has ERMS, which TCG copies bytewise (3-4 times slower
    transfers). One thread per vCPU is faster with one vCPU (boot 3.1 s, not 5.8 s) and 3-6 times
    slower to fork with two, so several vCPUs share a thread.
    """
    if accel == "tcg":
        return ["-accel", f"tcg,thread={'multi' if cpus == 1 else 'single'}"]
    return ["-accel", accel, "-cpu", "host"]


async def choose(spec: MachineSpec, files: MachineFiles, progress: Progress | None) -> Choice:
    """Return the accelerator for a start. What the spec names is never overruled."""
    if spec.accel != "auto":
        return Choice(spec.accel, "asked for")
    accel, obstacle = candidate()
    if obstacle is not None:
        return Choice("tcg", obstacle)
    cache = files.directory.parent.parent / "accel.json"
    key = _key(accel)
    known = read_json(cache) or {}
    if known.get("key") != key:
        if progress is not None:
            progress(f"trying {accel} (once, at most {TRIAL_S:g} s)")
        known = {"key": key, "works": await trial(accel, spec.kernel, spec.initrd, spec.append)}
        write_json(cache, known)
    if known["works"]:
        return Choice(accel, "a trial boot worked")
    return Choice("tcg", f"a trial boot with {accel} did not reach its console in {TRIAL_S:g} s")


def candidate() -> tuple[str, str | None]:
    """Return the accelerator of this kind of host, and what is in its way before any trial."""
    if sys.platform == "darwin":
        return "hvf", None
    if not KVM.exists():
        return "kvm", f"{KVM} does not exist"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "kvm", f"{KVM} is not accessible to this user"
    return "kvm", None


async def trial(
    accel: str, kernel: Path | None, initrd: Path | None, append: str, timeout_s: float = TRIAL_S
) -> bool:
    """Boot with nothing but a console; return whether it spoke in time. Leaves no process."""
    import tempfile  # here, as the next: slow to import, and a trial is rare

    with tempfile.TemporaryDirectory(prefix="hostctl-trial-") as directory:
        console = Path(directory) / "console"
        words = _arguments(accel, Path(directory), console)
        if kernel is None:
            words += _boot_sector(Path(directory))
        else:
            # Not `quiet`: the first line of the kernel is the sign.
            loud = " ".join(word for word in append.split() if word != "quiet")
            words += ["-kernel", str(kernel), "-append", f"console=ttyS0 {loud}"]
            words += ["-initrd", str(initrd)] if initrd is not None else []
        try:
            async with procs.running(_bounded(words, timeout_s)) as process:
                return await _speaks(process, console, timeout_s)
        except BackendError as err:
            logger.info("trial boot with %s: %s", accel, err)
            return False


def _arguments(accel: str, directory: Path, console: Path) -> list[str]:
    return [
        BINARY,
        *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-no-reboot"),
        *("-machine", "pc", *accel_arguments(accel, 1), "-m", str(TRIAL_MEMORY_MIB)),
        *("-serial", f"file:{console}"),
    ]


def _boot_sector(directory: Path) -> Sequence[str]:
    disk = directory / "boot.img"
    disk.write_bytes(BOOT_SECTOR)
    return ["-drive", f"file={disk},format=raw,if=ide,readonly=off"]


def _bounded(words: list[str], timeout_s: float) -> list[str]:
    # Should hostctl be killed in the middle of a trial, coreutils' timeout still ends it.
    import shutil

    if shutil.which("timeout") is None:
        return words
    return ["timeout", "--signal=KILL", f"{timeout_s + 2:g}", *words]


async def _speaks(process: asyncio.subprocess.Process, console: Path, timeout_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while process.returncode is None:
                if _size(console) > 0:
                    return True
                await asyncio.sleep(POLL_S)
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _key(accel: str) -> list[object]:
    binary = os.stat(procs.find_tool(BINARY))
    key: list[object] = [accel, os.uname().release, binary.st_size, binary.st_mtime_ns]
    if accel == "kvm":
        device = KVM.stat()
        key += [device.st_ino, device.st_mtime_ns]
    return key
