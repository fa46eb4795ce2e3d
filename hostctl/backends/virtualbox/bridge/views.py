"""Operations that only look: what a machine is made of, how it does, what is on its screen."""

from __future__ import annotations

import os
from typing import Any

from . import compat
from .lock import Steps, locked, unlock
from .machines import adapters, find, pid_of
from .serve import Operation, Reply

__all__ = ["OPERATIONS"]

UARTS = 4
WATCH_S = 0.05
SCREEN_LOOKS = 100


def view(box: Any, machine: str) -> dict[str, Any]:
    """Return what a machine is made of."""
    found = find(box, machine)
    return {
        "id": found.id_p,
        "name": found.name,
        "state": str(found.state),
        "pid": pid_of(box, found),
        "memory_mib": int(found.memory_size),
        "cpus": int(found.cpu_count),
        "settings": found.settings_file_path,
        "nics": [_nic(one) for one in adapters(found) if one.enabled],
        "uarts": [_uart(found.get_serial_port(slot)) for slot in range(UARTS)],
        "disks": [_disk(one) for one in found.medium_attachments if one.medium],
    }


def live(box: Any, machine: str, *, counters: str) -> Steps:
    """Return what the running machine itself says: its engine, its adapters, its counters."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=True)
    try:
        engine = compat.first(session.console, "debugger.executionEngine")
        names = {
            value: name for name, value in box.api.types.constants("VMExecutionEngine").items()
        }
        return {
            "engine": names.get(engine),
            "nics": [_nic(one) for one in adapters(session.machine) if one.enabled],
            "counters": session.console.debugger.get_stats(counters, False),
        }
    finally:
        unlock(session)


def screenshot(box: Any, machine: str) -> Steps:
    """Return the first screen as a PNG, and its size in pixels."""
    found = find(box, machine)
    session = yield from locked(box, found, shared=True)
    try:
        display = session.console.display
        width, height = display.get_screen_resolution(0)[:2]
        for _ in range(SCREEN_LOOKS):  # one that has just started has none yet
            if width and height:
                break
            yield WATCH_S
            width, height = display.get_screen_resolution(0)[:2]
        png = box.bindings.BitmapFormat.png
        data = display.take_screen_shot_to_array(0, width, height, png)
        return Reply({"width": int(width), "height": int(height)}, bytes(data))
    finally:
        unlock(session)


def watch(box: Any, machine: str) -> Steps:
    """Tell every state that a machine gets into, beginning with its own now; never ends.

    By a passive listener: an active one would have VBoxSVC call us, in a thread of its own.
    """
    found = find(box, machine)
    source, kinds = box.virtualbox.event_source, box.bindings.VBoxEventType
    listener = source.create_listener()
    source.register_listener(listener, [kinds.on_machine_state_changed], False)
    try:
        yield Reply({"state": str(found.state)})
        while True:
            event = source.get_event(listener, 0)
            if not event:
                yield WATCH_S
                continue
            state = _state_in(box, event, found.id_p)
            source.event_processed(listener, event)
            if state is not None:
                yield Reply({"state": state})
    finally:
        source.unregister_listener(listener)


def _state_in(box: Any, event: Any, machine: str) -> str | None:
    """Return the state that an event tells of, if it is that machine's."""
    changed = box.bindings.IMachineStateChangedEvent(event)
    return str(changed.state) if changed.machine_id == machine else None


def _nic(adapter: Any) -> dict[str, Any]:
    return {
        "slot": int(adapter.slot),
        "kind": str(adapter.adapter_type),
        "to": str(adapter.attachment_type),
    }


def _uart(port: Any) -> dict[str, Any]:
    return {
        "slot": int(port.slot),
        "enabled": bool(port.enabled),
        "mode": str(port.host_mode),
        "server": bool(port.server),
        "path": port.path,
    }


def _disk(attachment: Any) -> dict[str, Any]:
    medium = attachment.medium
    base = medium.base
    return {
        "kind": str(attachment.type_p),
        "path": medium.location,
        "base": base.location if base and base.id_p != medium.id_p else None,
        "virtual_bytes": int(medium.logical_size),
        "used_bytes": _used(medium.location),
    }


def _used(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


OPERATIONS: dict[str, Operation] = {
    "machine.view": view,
    "machine.live": live,
    "machine.screenshot": screenshot,
    "machine.watch": watch,
}
