"""Options that several families of commands take, each declared and worded once.

Which machines a line means is selection.py's.
"""

import argparse
from typing import Final

from .. import units
from .values import FILE, complete, parse_count, typed

CHANNELS: Final = ("auto", "agent", "qga", "guestcontrol", "serial", "console")  # connect.LINES

Container = argparse.ArgumentParser | argparse._ArgumentGroup


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON; its keys stay as they are")


def add_timeout(parser: argparse.ArgumentParser, text: str, default: float | None) -> None:
    """Declare `--timeout`, a duration; `default` is in seconds."""
    parser.add_argument(
        "--timeout",
        dest="timeout_s",
        metavar="TIME",
        type=typed(units.parse_duration),
        default=default,
        help=text,
    )


def add_file(
    parser: Container, name: str, *, metavar: str, help: str, nargs: str | None = None
) -> None:
    """Declare a word or an option that names a local file."""
    complete(parser.add_argument(name, metavar=metavar, help=help, nargs=nargs), FILE)


def add_channel(parser: argparse.ArgumentParser) -> None:
    """Declare `--channel`."""
    parser.add_argument(
        "--channel",
        choices=CHANNELS,
        default="auto",
        help="how to reach the guest: our agent, QEMU's guest agent, VirtualBox's guest control, "
        "our agent on the serial line, a login on it, or the best that answers (default)",
    )


def add_steal(parser: argparse.ArgumentParser) -> None:
    """Declare `--steal`."""
    parser.add_argument(
        "--steal",
        action="store_true",
        help="take ports over from whoever else holds their lines, such as virsh (libvirt only)",
    )


def add_connect(parser: Container) -> None:
    """Declare `--connect`, for those that make or take a machine."""
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="the libvirt to use, such as qemu:///system or qemu+ssh://root@host/system (default: "
        "the one of virsh); of VirtualBox: words to put before its programs",
    )


def add_login(parser: Container) -> None:
    """Declare who logs in to the guest: `--login`, or `--user`."""
    login = parser.add_mutually_exclusive_group()
    add_file(
        login,
        "--login",
        metavar="FILE",
        help="who logs in to the guest, at its serial line or by guest control: "
        'user = "…", password = "…", readable by you alone',
    )
    login.add_argument("--user", metavar="USER", help="the same, the password is asked for")


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Declare what boots, and the machine it boots in."""
    boot = parser.add_argument_group("what boots")
    boot.add_argument(
        "--image",
        metavar="IMAGE",
        help="an image by name, built when it is not there yet (default: tiny, unless --disk names "
        "a file to boot); none: the firmware looks for something to boot",
    )
    add_file(boot, "--kernel", metavar="FILE", help="boot this kernel instead of an image")
    add_file(boot, "--initrd", metavar="FILE", help="initial RAM disk for --kernel")
    boot.add_argument(
        "--append", metavar="LINE", help="kernel command line, added to the image's if there is one"
    )
    shape = parser.add_argument_group("the machine")
    shape.add_argument(
        "--memory",
        metavar="SIZE",
        type=typed(units.parse_memory_mib),
        default=256,
        help="RAM, such as 256M or 2G (default: 256M)",
    )
    shape.add_argument(
        "--cpus",
        metavar="N",
        type=parse_count,
        default=1,
        help="virtual CPUs (default: 1; without KVM more are slower)",
    )
    shape.add_argument(
        "--disk",
        metavar="DISK",
        action="append",
        default=[],
        help="FILE[,size=SIZE][,format=qcow2|raw]: a disk image, itself left untouched, for writes "
        "go to an overlay; or size=SIZE: an empty disk; repeatable; of VirtualBox: vdi, vmdk, vhd, "
        "raw, which are copied, or iso, a CD",
    )
    shape.add_argument(
        "--accel",
        choices=("auto", "kvm", "hvf", "tcg"),
        default="auto",
        help="auto takes KVM or HVF only after it proved to boot (default)",
    )
    shape.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="one more word for QEMU's command line, such as --qemu-arg=-name; repeatable",
    )


def add_on_clone(parser: argparse.ArgumentParser, text: str) -> None:
    """Declare `--on-clone`."""
    add_file(parser, "--on-clone", metavar="SCRIPT", help=text)


def add_overcommit(parser: argparse.ArgumentParser) -> None:
    """Declare `--overcommit`."""
    parser.add_argument(
        "--overcommit",
        action="store_true",
        help="start even if there may be too little memory for all of the clones' RAM",
    )


def add_clone_options(parser: argparse.ArgumentParser) -> None:
    """Declare what concerns every clone that is made."""
    text = "a script that the clone's /bin/sh runs first, after the template's; $1 is its name"
    add_on_clone(parser, text)
    add_overcommit(parser)
