"""The command line is compared with golden files: every change of it is seen in review.

Rewrite them with `HOSTCTL_GOLDEN=write pytest tests/unit/hostctl/test_argv.py`.
"""

import os
from pathlib import Path

import pytest

from hostctl.backends.interface import DiskSpec, MachineSpec
from hostctl.backends.qemu.argv import Launch, argv
from hostctl.backends.qemu.backend import NAMES
from hostctl.state import Home, MachineFiles

GOLDEN = Path(__file__).parent / "golden"
KERNEL = Path("/images/vmlinux")

DIRECT = MachineSpec("web", kernel=KERNEL, initrd=Path("/images/initrd"), append="quiet")
DISKS = MachineSpec(
    "db",
    disks=(DiskSpec(Path("/base.qcow2")), DiskSpec(size_bytes=1 << 30)),
    memory_mib=1024,
    cpus=2,
    extra_args=("-device", "virtio-balloon"),
)


def files(name: str, runtime: str = "/run/hostctl") -> MachineFiles:
    return Home(Path("/state"), Path(runtime)).files(name)


def launch(spec: MachineSpec, accel: str, *, frozen: bool = False, boots: bool = False) -> Launch:
    return Launch(
        "c0ffee", accel, NAMES, spec.kernel, spec.initrd, spec.append, boots, frozen=frozen
    )


CASES = {
    "kernel-tcg": (DIRECT, launch(DIRECT, "tcg", boots=True)),
    "disks-kvm-frozen": (DISKS, launch(DISKS, "kvm", frozen=True)),
    "disks-tcg": (DISKS, launch(DISKS, "tcg")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_command_line_is_the_golden_one(case: str) -> None:
    spec, run = CASES[case]
    words = argv(spec, files(spec.name), run)
    text = " ".join(words).replace(" -", "\n-") + "\n"
    golden = GOLDEN / f"argv-{case}.txt"
    if os.environ.get("HOSTCTL_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_was_not_asked_for(case: str) -> None:
    spec, run = CASES[case]
    words = argv(spec, files(spec.name), run)
    for flag in ("-nodefaults", "-no-user-config"):
        assert flag in words
    assert words[words.index("-nic") + 1] == "none"
    assert words[words.index("-display") + 1] == "none"
    assert "spawn=deny" in words[words.index("-sandbox") + 1]
    assert not any("netdev" in word or "hostfwd" in word for word in words)


def test_a_comma_in_a_path_cannot_add_an_option() -> None:
    words = argv(DIRECT, files("web", "/run/a,server=off"), CASES["kernel-tcg"][1])
    sockets = [word for word in words if word.startswith("socket,")]
    assert sockets
    assert all("path=/run/a,,server=off/web/" in word for word in sockets)


def test_every_port_has_its_number_and_socket() -> None:
    words = argv(DIRECT, files("web"), CASES["kernel-tcg"][1])
    devices = [word for word in words if word.startswith("virtserialport,")]
    assert len(devices) == len(NAMES) == 14
    assert "nr=1,chardev=port1,name=org.hostctl.0" in devices[0]
    assert any("path=/run/hostctl/web/out.7.sock" in word for word in words)
