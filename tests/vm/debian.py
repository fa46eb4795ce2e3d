"""A Debian with qemu-guest-agent and an init of choice on a disk, made without root, kept in cache.

mmdebstrap in a fake chroot, mke2fs from a folder, no loop device, no boot loader: the kernel is
that of `tiny`, with an initramfs that mounts the disk and switches to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hostctl_images import build, cpio
from hostctl_images.image import cache_folder
from hostctl_images.kernel import load_order

COMMON = "udev,dbus,procps,qemu-guest-agent"
INITS = {
    "systemd": "systemd-sysv",
    "sysvinit": "sysvinit-core",
    "openrc": "sysvinit-core,openrc",
}
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
NEEDLESS = ("doc", "man", "locale")
SIZE = "600M"
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_rng", "button", "evdev")
APPEND = "console=ttyS0 quiet panic=-1 no_timer_check tsc=nowatchdog cryptomgr.notests"

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /lib/modules/*.ko; do insmod "$module"; done
while [ ! -b /dev/vda ]; do sleep 0.1; done
mount /dev/vda /new || exec sh
mount --move /dev /new/dev
umount /sys /proc
exec switch_root /new /sbin/init
"""


def disk(init: str = "systemd") -> Path:
    """Return the disk as a raw file, made if it is not there: half a minute, 600 MB, sparse."""
    folder = cache_folder() / "tests"
    made = folder / f"debian-{SUITE}-{init}.ext4"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="debian-") as name:
            work = Path(name)
            tar = work / "system.tar"
            _bootstrap(tar, work, f"{INITS[init]},{COMMON}")
            _fill(tar, work, folder / f".{made.name}")
        (folder / f".{made.name}").rename(made)
    return made


def boot_files(folder: Path) -> tuple[Path, Path]:
    """Return a kernel, and an initramfs written into `folder`."""
    tiny = build("tiny")
    root = _modules(tiny.kernel)
    files = {
        "init": cpio.file(INIT.encode(), 0o755),
        "bin/busybox": cpio.file(_busybox().read_bytes(), 0o755),
        **{
            f"bin/{name}": cpio.link("busybox")
            for name in ("sh", "mount", "umount", "insmod", "sleep", "switch_root", "[")
        },
        **dict.fromkeys(("dev", "proc", "sys", "new"), cpio.directory()),
        "dev/console": cpio.node(5, 1, 0o600),
        "dev/null": cpio.node(1, 3, 0o666),
    }
    for number, module in enumerate(load_order(root, MODULES)):
        files[f"lib/modules/{number:02}-{module.name}.ko"] = cpio.file(module.data)
    initrd = folder / "initrd"
    with initrd.open("wb") as out:
        cpio.write(out, files)
    return tiny.kernel, initrd


def _modules(kernel: Path) -> Path:
    """Return the modules of an image's kernel: its folder holds the same file."""
    for made in (cache_folder() / "kernels").glob("*/vmlinux"):
        if made.samefile(kernel):
            return made.parent / "modules"
    raise AssertionError(f"whose kernel is {kernel}?")


def _busybox() -> Path:
    found = shutil.which("busybox")
    assert found is not None
    return Path(found)


def _bootstrap(tar: Path, work: Path, packages: str) -> None:
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NEEDLESS]
    words = ["mmdebstrap", "--mode=fakechroot", "--variant=minbase", f"--include={packages}"]
    _run([*words, *options, SUITE, str(tar), MIRROR], work, timeout_s=600)


def _fill(tar: Path, work: Path, target: Path) -> None:
    root, owners = work / "root", work / "owners"
    root.mkdir()
    fake = ["fakeroot", "-s", str(owners), "--"]
    _run([*fake, "tar", "-xf", str(tar), "-C", str(root)], work)
    # /etc/shadow- has mode 0000; fakeroot remembers what the tar said.
    _run(["chmod", "-R", "u+rwX", str(root)], work)
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(target), SIZE]
    _run(["fakeroot", "-i", str(owners), "--", *words], work)


def _run(words: list[str], work: Path, timeout_s: float = 120) -> None:
    environ = {**os.environ, "TMPDIR": str(work), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{words[0]}: {done.stderr[-2000:]}"
