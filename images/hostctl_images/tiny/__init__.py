"""The recipe `tiny`: Debian's cloud kernel, busybox, the agent, and nothing else; no disk, no NIC.

Boots in a few seconds under TCG. What it owns: which files are in the image and how the kernel is
started. Why each word of the command line is there, and what it gains, is in images/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import hostctl_guestside

from .. import cpio
from ..cpio import Entry
from ..kernel import Module

__all__ = ["APPEND", "BUSYBOX_PACKAGE", "KERNEL_PACKAGE", "MODULES", "entries", "texts"]

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX_PACKAGE = "busybox-static"

# All virtio is modular in the cloud kernel. Loaded in this order by rc, each after its needs.
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_rng", "button", "evdev")

# Work that a guest of ours does not need. A name that a kernel does not have is ignored.
NEEDLESS = (
    "trace_eval_init",  # enum names for tracing
    "init_encrypted",  # encrypted keys, whose hash is tested first
    "crypto_kdf108_init",  # the same for a key derivation
    "load_system_certificate_list",  # keys of signed modules; ours carry no signature
)

# Only words that are safe with and without KVM: nothing that states a clock's speed.
APPEND = " ".join(
    (
        "console=ttyS0",
        "quiet",
        "panic=-1",  # reboot at once; QEMU ends then
        "no_timer_check",  # on a loaded host the check fails, and the kernel panics
        "tsc=nowatchdog",  # or a stall of the host makes the guest give up its one fast clock
        "cryptomgr.notests",
        "lsm=",  # no AppArmor, TOMOYO, Landlock: hooks in each open and exec
        "init_on_alloc=0",
        "noreplace-smp",  # rewriting code is slow under TCG
        f"initcall_blacklist={','.join(NEEDLESS)}",
    )
)

SCRIPTS = ("rc", "button")

USER_ID = 1000

PASSWD = f"""\
root:x:0:0:root:/root:/bin/sh
user:x:{USER_ID}:{USER_ID}:an ordinary user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUP = f"""\
root:x:0:
user:x:{USER_ID}:
nogroup:x:65534:
"""


# busybox init, not a shell script: a shell makes what it starts by `&` deaf to SIGINT, and all of
# its children: no Ctrl-C would ever reach a command.
INITTAB = """\
::sysinit:/etc/rc
::once:/etc/button
::respawn:/bin/hostctl-agent </dev/null
::ctrlaltdel:reboot
::shutdown:umount -a -r
"""


def texts() -> Mapping[str, bytes]:
    """Return the texts of ours that go into the image: a change of one makes an image stale."""
    ours = {name: (Path(__file__).parent / name).read_bytes() for name in SCRIPTS}
    return {"agent": hostctl_guestside.agent(), **ours}


def entries(modules: Sequence[Module], busybox: bytes, applets: Iterable[str]) -> dict[str, Entry]:
    """Return all files of the initramfs."""
    ours = texts()
    files = {
        "init": cpio.link("bin/busybox"),
        **{f"etc/{name}": cpio.file(ours[name], 0o755) for name in SCRIPTS},
        "etc/inittab": cpio.file(INITTAB.encode()),
        "bin/hostctl-agent": cpio.file(ours["agent"], 0o755),
        "bin/busybox": cpio.file(busybox, 0o755),
        # Every applet in one folder, which all the usual paths lead to.
        **{f"bin/{name}": cpio.link("busybox") for name in applets if name != "busybox"},
        **dict.fromkeys(("usr/bin", "usr/sbin"), cpio.link("../bin")),
        "sbin": cpio.link("bin"),
        ".": cpio.directory(),
        **dict.fromkeys(("dev", "etc", "mnt", "proc", "sys", "run"), cpio.directory()),
        "tmp": cpio.directory(0o1777),
        "root": cpio.directory(0o700),
        "home/user": cpio.directory(0o700, (USER_ID, USER_ID)),
        # The kernel and init open these before devtmpfs is there.
        "dev/console": cpio.node(5, 1, 0o600),
        "dev/null": cpio.node(1, 3, 0o666),
        "etc/passwd": cpio.file(PASSWD.encode()),
        "etc/group": cpio.file(GROUP.encode()),
        "etc/hostname": cpio.file(b"tiny\n"),
        "etc/hosts": cpio.file(b"127.0.0.1 localhost tiny\n::1 localhost\n"),
    }
    for number, module in enumerate(modules):
        files[f"lib/modules/{number:02}-{module.name}.ko"] = cpio.file(module.data)
    return files
