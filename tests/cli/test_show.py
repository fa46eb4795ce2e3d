"""What `show` says, above all about the network."""

import json
from dataclasses import dataclass

import pytest

from hostctl.backends.interface import Nic
from hostctl.cli.main import main
from hostctl.lifecycle import MachineState

from .fakes import FakeMachine

NIC = Nic("virtio-net-pci", "00:05.0")


@dataclass(frozen=True)
class Said:
    """What the two witnesses say, and what follows."""

    nics: tuple[Nic, ...] | None
    inside: tuple[str, ...] | None
    isolated: bool | None
    words: str


SAYINGS = (
    Said((), ("lo",), True, "no network: proved"),
    Said((), (), True, "no network: proved"),
    Said((), None, None, "the guest was not heard"),
    Said((), ("lo", "wg0"), False, "but inside there is wg0"),
    Said((NIC,), ("lo",), False, "1 NIC, says the hypervisor: virtio-net-pci at 00:05.0"),
    Said(None, None, None, "not known"),
)


@pytest.mark.parametrize("said", SAYINGS, ids=lambda said: said.words)
def test_isolation_takes_two_witnesses(
    web: FakeMachine, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    web.current = MachineState.RUNNING
    web.nics, web.guest_nics = said.nics, said.inside
    assert main(["show", "web"]) == 0
    assert said.words in capsys.readouterr().out
    assert main(["show", "web", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["isolated"] is said.isolated


def test_a_hostile_interface_name_is_harmless(
    web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    web.guest_nics = ("lo", "\x1b]0;pwned\x07")
    assert main(["show", "web"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_all_that_is_known(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    web.current = MachineState.RUNNING
    assert main(["show", "web"]) == 0
    out = capsys.readouterr().out
    assert "state     running, process 4711, up 1m 23s\n" in out
    assert "accel     tcg (no /dev/kvm)\n" in out
    assert "shape     1 CPU, 256 MiB memory\n" in out
    assert "snapshot  base of 2026-01-" in out


def test_the_keys_of_show_are_stable(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "web", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == [
        "name",
        "state",
        "pid",
        "uptime_s",
        "tags",
        "image",
        "cpus",
        "memory_mib",
        "hypervisor",
        "accel",
        "accel_reason",
        "network",
        "channel",
        "channel_reason",
        "capabilities",
        "ports",
        "disks",
        "snapshots",
        "directory",
        "console_log",
    ]
    assert shown["snapshots"] == [
        {
            "tag": "base",
            "created": "2026-01-02T03:04:05+00:00",
            "vm_state_bytes": 101711872,
            "has_ram": True,
        }
    ]
