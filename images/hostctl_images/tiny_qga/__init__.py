"""The recipe `tiny-qga`: `tiny` with QEMU's guest agent in place of ours.

Stands for all the guests that have never heard of hostctl: what can be done with those, and what
not, is tried on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .. import cpio, tiny
from ..cpio import Entry
from ..kernel import Module

__all__ = ["PACKAGE", "PROGRAM", "entries", "texts"]

PACKAGE = "qemu-guest-agent"
PROGRAM = "usr/sbin/qemu-ga"
SCRIPTS = ("qga", "shutdown")

INITTAB = """\
::sysinit:/etc/rc
::once:/etc/button
::respawn:/etc/qga </dev/null
::ctrlaltdel:reboot
::shutdown:umount -a -r
"""


def texts() -> Mapping[str, bytes]:
    """Return the texts of ours that go into the image."""
    ours = {name: (Path(__file__).parent / name).read_bytes() for name in SCRIPTS}
    theirs = {name: text for name, text in tiny.texts().items() if name != "agent"}
    return {**theirs, **ours}


def entries(
    modules: Sequence[Module],
    busybox: bytes,
    applets: Iterable[str],
    programs: Mapping[str, bytes],
) -> dict[str, Entry]:
    """Return all files of the initramfs; `programs` are qemu-ga and its libraries."""
    ours = texts()
    files = tiny.entries(modules, busybox, applets)
    del files["bin/hostctl-agent"]
    # /usr/sbin leads to /bin, as all the usual paths do.
    moved = {path.replace("usr/sbin/", "bin/"): text for path, text in programs.items()}
    return {
        **files,
        **{path: cpio.file(text, 0o755) for path, text in moved.items()},
        "etc/inittab": cpio.file(INITTAB.encode()),
        "etc/qga": cpio.file(ours["qga"], 0o755),
        "bin/shutdown": cpio.file(ours["shutdown"], 0o755),
        "etc/hostname": cpio.file(b"tiny-qga\n"),
        "var/run": cpio.link("../run"),
    }
