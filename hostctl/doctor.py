"""What works on this host, what does not, and the way out. It tries things, rather than ask."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from . import procs
from .backends import accel
from .backends.accel import BINARY
from .backends.interface import NAME_LIMIT
from .errors import HostctlError, ToolMissing, Unsupported
from .state import MAX_SOCKET_PATH, Home

__all__ = ["Finding", "Status", "examine"]

MIN_PYTHON = (3, 11)
MIN_MEMORY = 512 << 20  # a 256 MiB guest, QEMU itself, and room to breathe
MIN_DISK = 512 << 20  # two or three snapshots of such a guest
VERSION_S = 20.0
IMAGE = "tiny"
OPTIONAL = frozenset({"acceleration", "libvirt", "virtualbox"})


class Status(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the host. A required one that fails keeps the main job from running."""

    part: str
    status: Status
    detail: str
    fix: str | None = None
    required: bool = True


async def examine(home: Home) -> tuple[Finding, ...]:
    """Look at each part in turn, for some seconds. Never raises: what goes wrong is a finding."""
    checks: tuple[tuple[str, Callable[[Home], Awaitable[Finding]]], ...] = (
        ("python", _python),
        ("qemu", _qemu),
        ("qemu-img", _qemu_img),
        ("qemu.qmp", _qmp),
        ("trial boot", _trial_boot),
        ("acceleration", _acceleration),
        ("libvirt", _libvirt),
        ("virtualbox", _virtualbox),
        ("image", _image),
        ("directories", _directories),
        ("socket paths", _socket_paths),
        ("memory", _memory),
        ("disk space", _disk_space),
    )
    return tuple([await _checked(part, check, home) for part, check in checks])


async def _checked(part: str, check: Callable[[Home], Awaitable[Finding]], home: Home) -> Finding:
    is_required = part not in OPTIONAL
    try:
        return await check(home)
    except HostctlError as err:
        return Finding(part, Status.FAIL, str(err), err.hint, is_required)
    except (OSError, ImportError) as err:
        return Finding(part, Status.FAIL, f"{type(err).__name__}: {err}", required=is_required)


async def _python(_: Home) -> Finding:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return Finding("python", Status.FAIL, version, "use Python 3.11 or newer")
    return Finding("python", Status.OK, f"{version} at {sys.executable}")


async def _qemu(_: Home) -> Finding:
    return Finding("qemu", Status.OK, await _version(BINARY))


async def _qemu_img(_: Home) -> Finding:
    return Finding("qemu-img", Status.OK, await _version("qemu-img"))


async def _qmp(_: Home) -> Finding:
    from importlib.metadata import version

    import qemu.qmp  # noqa: F401 the import is the check

    return Finding("qemu.qmp", Status.OK, version("qemu.qmp"))


async def _trial_boot(_: Home) -> Finding:
    """Emulation always works where QEMU does: proved with a boot sector, in half a second."""
    if await accel.trial("tcg", None, None, ""):
        return Finding("trial boot", Status.OK, "a boot sector ran under emulation (tcg)")
    detail = f"qemu did not run a boot sector within {accel.TRIAL_S:g} s"
    return Finding("trial boot", Status.FAIL, detail, f"run {BINARY} by hand and see what it says")


async def _acceleration(_: Home) -> Finding:
    kind, obstacle = accel.candidate()
    if obstacle is not None:
        detail = f"{obstacle}; machines are emulated, several times slower"
        return Finding("acceleration", Status.WARN, detail, _kvm_fix(), required=False)
    kernel, initrd, append = _trial_kernel()
    what = "a boot sector" if kernel is None else f"the kernel of image {IMAGE}"
    if await accel.trial(kind, kernel, initrd, append):
        return Finding("acceleration", Status.OK, f"{kind} booted {what}", required=False)
    detail = f"{kind} is there, but {what} said nothing within {accel.TRIAL_S:g} s: not used"
    fix = "on a nested host, give its own machine nested virtualisation that works"
    return Finding("acceleration", Status.WARN, detail, fix, required=False)


async def _libvirt(_: Home) -> Finding:
    """Without it all works that does not name it."""
    from .backends.libvirt import binding

    try:
        found = f"libvirt {binding.version()}; try: hostctl create NAME --backend libvirt"
        return Finding("libvirt", Status.OK, found, required=False)
    except ToolMissing as err:
        detail = "not installed: no machines on libvirt, here or elsewhere"
        return Finding("libvirt", Status.WARN, detail, err.hint, required=False)


async def _virtualbox(_: Home) -> Finding:
    """The same. Asks VirtualBox, which starts its service for as long as that takes."""
    from .backends.virtualbox.choice import open_driver
    from .backends.virtualbox.place import Place

    try:
        driver = await open_driver(Place.default())
    except (ToolMissing, Unsupported) as err:
        status = Status.WARN
        detail = f"{err}: no machines on VirtualBox"
        return Finding("virtualbox", status, detail, err.hint, required=False)
    try:
        found = f"{await driver.version()} through {driver.word}"
    finally:
        await driver.close()
    obstacle = _vboxdrv()
    if obstacle is not None:
        fix = "install the module for this kernel (on Debian: virtualbox-dkms), and load it"
        return Finding("virtualbox", Status.WARN, f"{found}; {obstacle}", fix, required=False)
    detail = f"{found}; try: hostctl create NAME --backend virtualbox --disk FILE"
    return Finding("virtualbox", Status.OK, detail, required=False)


def _vboxdrv() -> str | None:
    """Return why machines will not start, on the one system where that is easily seen."""
    if sys.platform == "linux" and not Path("/dev/vboxdrv").exists():
        return "its kernel driver is not loaded: no machine will start"
    return None


async def _image(_: Home) -> Finding:
    from hostctl_images import find

    image = find(IMAGE)
    return Finding("image", Status.OK, f"{IMAGE}, {image.size_bytes / 2**20:.0f} MiB")


async def _directories(home: Home) -> Finding:
    home.open()
    for path in (home.state, home.runtime):
        if not os.access(path, os.W_OK | os.X_OK):
            return Finding("directories", Status.FAIL, f"{path} cannot be written", f"chown {path}")
    return Finding("directories", Status.OK, f"state {home.state}, runtime {home.runtime}")


async def _socket_paths(home: Home) -> Finding:
    left = MAX_SOCKET_PATH - len(os.fsencode(home.files("").socket("console"))) - 1
    detail = f"machine names may have {min(left, NAME_LIMIT)} characters"
    if left >= NAME_LIMIT:
        return Finding("socket paths", Status.OK, detail)
    status = Status.WARN if left > 0 else Status.FAIL
    fix = f"set HOSTCTL_RUNTIME_DIR to a path shorter than {home.runtime}"
    return Finding("socket paths", status, detail if left > 0 else "no name fits", fix)


async def _memory(_: Home) -> Finding:
    available = _available_memory()
    detail = f"{available / 2**20:.0f} MiB available"
    if available < MIN_MEMORY:
        return Finding("memory", Status.WARN, detail, "end other programs, or use less --memory")
    return Finding("memory", Status.OK, detail)


async def _disk_space(home: Home) -> Finding:
    free = shutil.disk_usage(home.state).free
    detail = f"{free / 2**20:.0f} MiB free at {home.state}"
    if free < MIN_DISK:
        fix = "free some, or set HOSTCTL_STATE_DIR to another file system"
        return Finding("disk space", Status.WARN, detail, fix)
    return Finding("disk space", Status.OK, detail)


async def _version(tool: str) -> str:
    finished = await procs.run([procs.find_tool(tool), "--version"], timeout_s=VERSION_S)
    return finished.stdout.decode("utf-8", "replace").splitlines()[0]


def _kvm_fix() -> str:
    if accel.KVM.exists():
        return "add yourself to its group: usermod -aG kvm USER, and log in anew"
    return "switch virtualisation on in the firmware, and load kvm_intel or kvm_amd"


def _trial_kernel() -> tuple[Path | None, Path | None, str]:
    try:
        from hostctl_images import find

        image = find(IMAGE)
    except (HostctlError, ImportError, ToolMissing):
        return None, None, ""
    return image.kernel, image.initrd, image.append


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
