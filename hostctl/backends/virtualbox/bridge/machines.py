"""Operations on machines: which there are, their making, their life, their end."""

from __future__ import annotations

from typing import Any, Callable

from . import compat
from .lock import Steps, finish, is_locked, locked, unlock, unlocked
from .serve import Fault, Operation

__all__ = ["OPERATIONS", "adapters", "find", "pid_of"]

IDE, SATA = "ide", "sata"
OS_TYPES = ("Linux26_64", "Linux_64", "Other_64", "Other")
VRAM_MIB = 16
SLOTS = 36  # of network adapters; the chipset with most has as many


def list_machines(box: Any) -> list[dict[str, str]]:
    """Return every machine of this VirtualBox, by name and id."""
    return [{"name": one.name, "id": one.id_p} for one in box.virtualbox.machines]


def find(box: Any, machine: str) -> Any:
    """Return a machine by id or name."""
    return box.virtualbox.find_machine(machine)


def look(box: Any, machine: str) -> dict[str, Any]:
    """Return its state, by VirtualBox's own word, whether somebody has it locked, and by whom."""
    found = find(box, machine)
    return {
        "state": str(found.state),
        "locked": is_locked(box, found),
        "pid": pid_of(box, found),
        "kind": found.session_name,
    }


def pid_of(box: Any, machine: Any) -> int | None:
    """Return the process that has the machine locked: VBoxHeadless, if it runs."""
    return int(machine.session_pid) if is_locked(box, machine) else None


def create(
    box: Any,
    *,
    id: str,
    name: str,
    settings: str,
    memory_mib: int,
    cpus: int,
    emulated: bool,
    disks: list[dict[str, Any]],
) -> Steps:
    """Make and register a machine with no network adapter. All or nothing."""
    made = compat.create_machine(box.api, settings, name, _os_type(box), f"UUID={id}")
    _shape(box, made, memory_mib, cpus, emulated)
    _isolate(made)
    made.save_settings()
    box.virtualbox.register_machine(made)
    try:
        session = yield from locked(box, made, shared=False)
        try:
            yield from _attach(box, session.machine, disks)
            session.machine.save_settings()
        finally:
            unlock(session)
    except BaseException:
        made.unregister(box.bindings.CleanupMode.detach_all_return_none)
        raise


def prepare(box: Any, machine: str, *, uarts: list[dict[str, Any]], extra: dict[str, str]) -> Steps:
    """Set what belongs to one start: where serial lines end, and extra data ("" removes)."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=False)
    try:
        for uart in uarts:
            set_uart(box, session.machine, **uart)
        for key, value in extra.items():
            session.machine.set_extra_data(key, value)
        session.machine.save_settings()
    finally:
        unlock(session)


def launch(box: Any, machine: str) -> Steps:
    """Start it, without a window; return when it runs."""
    found = find(box, machine)
    session = box.api.module.Session()
    try:
        yield from finish(found.launch_vm_process(session, "headless", []), "it did not start")
    finally:
        unlock(session)


def power_off(box: Any, machine: str, *, within_s: float) -> Steps:
    """End it now, and wait until its process has gone."""
    found = find(box, machine)
    if is_locked(box, found):
        session = yield from locked(box, found, shared=True)
        try:
            yield from finish(session.console.power_down(), "it was not powered off")
        finally:
            unlock(session)
            del session
    yield from unlocked(box, found, within_s)


def save_state(box: Any, machine: str) -> Steps:
    """Write its memory to disk and end it."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=True)
    try:
        yield from finish(session.machine.save_state(), "its state was not saved")
    finally:
        unlock(session)
        del session
    yield from unlocked(box, found)


def discard_state(box: Any, machine: str) -> Steps:
    """Drop a saved state; fine if there is none."""
    found = find(box, machine)
    if str(found.state) not in ("Saved", "AbortedSaved"):
        return
    session = yield from locked(box, found, shared=False)
    try:
        session.machine.discard_saved_state(True)
    finally:
        unlock(session)


def remove(box: Any, machine: str, *, media: bool) -> Steps:
    """Unregister it; with `media` delete its disks, saved states and settings too."""
    found = find(box, machine)
    modes = box.bindings.CleanupMode
    mode = modes.detach_all_return_hard_disks_only if media else modes.detach_all_return_none
    disks = found.unregister(mode)
    if media:
        yield from finish(found.delete_config(disks), "its files were not deleted")


def clone(box: Any, machine: str, *, snapshot: str, id: str, name: str, settings: str) -> Steps:
    """Make a machine whose disks are differences to those of a snapshot of another."""
    origin = find(box, machine).find_snapshot(snapshot).machine
    made = compat.create_machine(box.api, settings, name, origin.os_type_id, f"UUID={id}")
    library = box.bindings
    progress = origin.clone_to(made, library.CloneMode.machine_state, [library.CloneOptions.link])
    yield from finish(progress, "it was not cloned")
    _isolate(made)
    made.save_settings()
    box.virtualbox.register_machine(made)


def set_uart(box: Any, machine: Any, *, slot: int, mode: str, path: str) -> None:
    """End a serial line in a file ("file"), in a socket that VirtualBox serves ("pipe"), nowhere.

    Works on a machine that runs, too.
    """
    port, modes = machine.get_serial_port(slot), box.bindings.PortMode
    if str(port.host_mode) != "Disconnected":  # or it would be opened with half of the settings
        port.host_mode = modes.disconnected
    if not port.enabled:  # a machine that runs may not be asked that
        port.enabled = True
    if mode == "off":
        return
    port.path = path  # first: it is checked when the mode is set
    port.server = mode == "pipe"
    port.host_mode = modes.host_pipe if mode == "pipe" else modes.raw_file


def connect_uart(box: Any, machine: str, *, slot: int, mode: str, path: str) -> Steps:
    """The same on a machine that runs."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=True)
    try:
        set_uart(box, session.machine, slot=slot, mode=mode, path=path)
    finally:
        unlock(session)


def set_extra(box: Any, machine: str, *, key: str, value: str) -> Steps:
    """Set extra data, which a machine that runs hears of; "" removes it."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=is_locked(box, found))
    try:
        session.machine.set_extra_data(key, value)
    finally:
        unlock(session)


def _on_console(work: Callable[[Any], Any], unless: str = "") -> Operation:
    """Return an operation on the console of a machine that runs; `unless` it is in that state."""

    def operation(box: Any, machine: str) -> Steps:
        found = find(box, machine)
        if str(found.state) == unless:
            return
        session = yield from locked(box, found, shared=True)
        try:
            work(session.console)
        finally:
            unlock(session)

    return operation


def _os_type(box: Any) -> str:
    """Return the likeliest of the kinds of guest that this VirtualBox knows, for its defaults."""
    known = {one.id_p for one in box.virtualbox.guest_os_types}
    return next(one for one in OS_TYPES if one in known)


def _shape(box: Any, machine: Any, memory_mib: int, cpus: int, emulated: bool) -> None:
    machine.memory_size = memory_mib
    machine.cpu_count = cpus
    types, settle = box.api.types.constants, compat.settle
    settle(machine, VRAM_MIB, "graphicsAdapter.VRAMSize")
    settle(machine, True, "firmwareSettings.IOAPICEnabled", "BIOSSettings.IOAPICEnabled")
    settle(machine, True, "platform.RTCUseUTC", "RTCUseUTC")
    for name, value in (("logoFadeIn", False), ("logoFadeOut", False), ("logoDisplayTime", 0)):
        settle(machine, value, f"firmwareSettings.{name}", f"BIOSSettings.{name}")
    menu = types("FirmwareBootMenuMode") or types("BIOSBootMenuMode")
    for owner in ("firmwareSettings", "BIOSSettings"):
        settle(machine, menu["Disabled"], f"{owner}.bootMenuMode")
    settle(machine, False, "audioSettings.adapter.enabled", "audioAdapter.enabled")
    settle(machine, False, "VRDEServer.enabled")
    if emulated and not settle(
        machine, types("VMExecutionEngine").get("Interpreter"), "VMExecutionEngine"
    ):
        raise Fault("unsupported", "VirtualBox emulates a processor since 7.1 only")


def _isolate(machine: Any) -> None:
    """Disable every network adapter."""
    for adapter in adapters(machine):
        adapter.enabled = False


def adapters(machine: Any) -> Any:
    """Yield the network adapters that the chipset has room for."""
    for slot in range(SLOTS):
        try:
            yield machine.get_network_adapter(slot)
        except Exception:  # noqa: PERF203 that was the last
            return


def _attach(box: Any, machine: Any, disks: list[dict[str, Any]]) -> Steps:
    # The first four on IDE: VirtualBox's BIOS looks five seconds for disks that only AHCI has.
    library, media = box.bindings, []
    for disk in disks:
        opened = yield from _open(box, disk)
        media.append(opened)
    buses = {IDE: library.StorageBus.ide, SATA: library.StorageBus.sata}
    for name in dict.fromkeys(_place(index)[0] for index in range(len(media))):
        machine.add_storage_controller(name, buses[name])
    for index, (medium, is_dvd) in enumerate(media):
        name, port, device = _place(index)
        kind = library.DeviceType.dvd if is_dvd else library.DeviceType.hard_disk
        machine.attach_device(name, port, device, kind, medium)
    _boot_from(box, machine, bool(media) and media[0][1])


def _place(index: int) -> tuple[str, int, int]:
    """Return controller, port and device of a disk; IDE has two devices on each of two ports."""
    return (IDE, index // 2, index % 2) if index < 4 else (SATA, index - 4, 0)


def _open(box: Any, disk: dict[str, Any]) -> Steps:
    library, is_dvd = box.bindings, disk["kind"] == "dvd"
    kind = library.DeviceType.dvd if is_dvd else library.DeviceType.hard_disk
    mode = library.AccessMode.read_only if is_dvd else library.AccessMode.read_write
    # A copy has the identity of its original: a disk of ours gets one of its own.
    medium = box.virtualbox.open_medium(disk["path"], kind, mode, not is_dvd)
    size = int(disk.get("size_bytes") or 0)
    if size > int(medium.logical_size):
        yield from finish(medium.resize(size), "the disk was not grown")
        medium.refresh_state()  # or it goes on to tell its old size
    return medium, is_dvd


def _boot_from(box: Any, machine: Any, dvd_first: bool) -> None:
    kinds = box.bindings.DeviceType
    order = [kinds.dvd, kinds.hard_disk] if dvd_first else [kinds.hard_disk, kinds.dvd]
    for position, kind in enumerate([*order, kinds.null, kinds.null], start=1):
        machine.set_boot_order(position, kind)


OPERATIONS: dict[str, Operation] = {
    "machines.list": list_machines,
    "machine.look": look,
    "machine.create": create,
    "machine.prepare": prepare,
    "machine.launch": launch,
    "machine.power_button": _on_console(lambda console: console.power_button()),
    "machine.pause": _on_console(lambda console: console.pause(), unless="Paused"),
    "machine.resume": _on_console(lambda console: console.resume(), unless="Running"),
    "machine.reset": _on_console(lambda console: console.reset()),
    "machine.power_off": power_off,
    "machine.save_state": save_state,
    "machine.discard_state": discard_state,
    "machine.remove": remove,
    "machine.clone": clone,
    "machine.uart": connect_uart,
    "machine.extra": set_extra,
}
