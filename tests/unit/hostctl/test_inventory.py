from collections.abc import Mapping
from typing import Any, cast

from hostctl.backends.interface import Nic
from hostctl.backends.inventory import Asks, network_devices


class FakeMonitor:
    """Answers from two tables: the object tree by path, and the PCI buses."""

    def __init__(self, tree: Mapping[str, Any], buses: list[Any] | None = None) -> None:
        self._tree = tree
        self._buses = buses or []

    async def execute(self, command: str, arguments: Mapping[str, str] | None = None) -> Any:
        if command == "query-pci":
            return self._buses
        assert arguments is not None
        if command == "qom-get":
            return 3 << 3  # devfn
        return self._tree.get(arguments["path"], [])


async def devices(tree: Mapping[str, Any], buses: list[Any] | None = None) -> tuple[Nic, ...]:
    return await network_devices(cast(Asks, FakeMonitor(tree, buses)))


def child(name: str, kind: str) -> dict[str, str]:
    return {"name": name, "type": f"child<{kind}>"}


def function(slot: int, code: int) -> dict[str, Any]:
    return {"slot": slot, "function": 0, "class_info": {"class": code, "desc": f"{code:x}"}}


async def test_a_machine_without_network_devices_has_none() -> None:
    tree = {
        "/machine/peripheral": [child("vser0", "virtio-serial-pci"), {"name": "x", "type": "str"}],
        "/machine/peripheral/vser0": [{"name": "addr"}],
    }
    assert await devices(tree, [{"devices": [function(1, 0x0780)]}]) == ()


async def test_an_emulated_nic_on_any_bus_is_seen_once() -> None:
    tree = {
        "/machine/peripheral": [child("net0", "e1000")],
        "/machine/peripheral/net0": [{"name": "netdev"}, {"name": "addr"}],
        "/machine/peripheral-anon": [child("device[0]", "usb-net")],
        "/machine/peripheral-anon/device[0]": [{"name": "netdev"}],
    }
    assert await devices(tree, [{"devices": [function(3, 0x0200)]}]) == (
        Nic("e1000", "pci 03.0"),
        Nic("usb-net", "/machine/peripheral-anon/device[0]"),
    )


async def test_a_passed_through_card_is_seen_by_its_class_also_behind_a_bridge() -> None:
    bridge = {**function(2, 0x0604), "pci_bridge": {"devices": [function(5, 0x0280)]}}
    assert await devices({}, [{"devices": [bridge]}]) == (Nic("280", "pci 05.0"),)
