"""Operations of guest control: sessions with the Guest Additions, their commands and files.

Nothing here blocks for long: waits are cut into slices, and a stream is asked for what it has.
VirtualBox cannot wait for output ("WaitFlagNotSupported", 7.2), and every look costs the guest some
milliseconds, so looks grow rarer while nothing comes.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable

from . import compat
from .lock import Steps, locked, unlock
from .machines import find
from .serve import Fault, Operation, Reply

__all__ = ["OPERATIONS"]

OWNER = "hostctl"  # names of sessions: hostctl PID START
ADDITIONS_USERLAND = 2  # IGuest.additionsRunLevel: VBoxService has reported
WATCH_S = 0.25  # a VBoxHeadless lingers 15 s while somebody refers to a session of its
# For a session to start: 1 s, ten on a busy host that interprets its guest. VirtualBox itself gives
# up after 30 s; whoever does so before has the guest start two.
ATTEMPT_S = 40.0
RETRY_S = 0.3
HELD = 8  # of the 32 sessions that a machine may have
SLICE_MS = 15
# Of one call that moves bytes. It takes milliseconds; one that is given up may have lost what the
# guest had handed over already, so that is an error, never tried again.
MOVE_MS = 5000
START_S = 60.0
FIRST_S, SHARE, LONGEST_S = 0.05, 0.2, 0.5  # between looks for output: a share of the silence
READ_BYTES = 64 * 1024  # what VBoxService reads of a pipe at once
WRITE_BYTES = 32 * 1024
FILE_WRITE_BYTES = 64 * 1024  # VBoxService's buffer; more fails at first: VERR_BUFFER_OVERFLOW
FILE_READ_BYTES = 1 << 20
STDIN, STDOUT, STDERR = 0, 1, 2


class _Session:
    """A session that is open, and what of it is kept."""

    def __init__(self, box: Any, machine: Any, raw: Any) -> None:
        self.machine = machine
        self.raw = raw
        self._box = box
        self._children: set[int] = set()

    def keep(self, thing: Any) -> int:
        number: int = self._box.keep(thing)
        self._children.add(number)
        return number

    def forget(self, number: int) -> None:
        self._children.discard(number)
        self._box.drop(number)

    def close(self) -> None:
        for number in self._children:
            self._box.drop(number)
        _quietly(self.raw.close)


class _Process:
    def __init__(self, session: _Session, raw: Any) -> None:
        self.session = session
        self.raw = raw
        self.is_fresh = True  # nobody has looked for its output yet


class _File:
    def __init__(self, session: _Session, raw: Any) -> None:
        self.session = session
        self.raw = raw


# Sessions


def session(
    box: Any, machine: str, *, user: str, password: str, domain: str, within_s: float
) -> Steps:
    """Open a session, tell its number, and hold it until it ends or the request is cancelled."""
    found = find(box, machine)
    lock = yield from locked(box, found, shared=True)
    try:
        raw = yield from _opened(box, lock, user, password, domain, within_s)
        opened = _Session(box, found, raw)
        number = box.keep(opened)
        try:
            yield Reply({"session": number, "additions": str(lock.console.guest.additions_version)})
            while _is_alive(box, found) and _name(box, "GuestSessionStatus", raw) == "Started":
                yield WATCH_S
        finally:
            box.drop(number)
            opened.close()
    finally:
        unlock(lock)


def _opened(box: Any, lock: Any, user: str, password: str, domain: str, within_s: float) -> Steps:
    guest = lock.console.guest._i
    deadline = time.monotonic() + within_s
    while guest.additionsRunLevel < ADDITIONS_USERLAND:  # a session before that hangs for 30 s
        if time.monotonic() > deadline:
            raise Fault("guest.absent", "no Guest Additions have reported from this guest")
        yield WATCH_S
    _close_orphans(lock.console.guest)
    failed: list[Any] = []
    try:
        while True:
            name = f"{OWNER} {os.getpid()} {time.time():.0f}"
            raw = guest.createSession(user, password, domain, name)
            failed.append(raw)
            said = yield from _begun(box, raw)
            if not said:
                failed.remove(raw)
                return raw
            if _is_refusal(said):
                raise Fault("guest.login", said)
            # "The guest execution service is not ready (yet)": after a restore it begins anew.
            if time.monotonic() > deadline:
                raise Fault("guest.silent", said)
            # The next one gets the lowest free number. The guest may not be done with that of this
            # one, and would refuse it for 30 s (VERR_DUPLICATE): so it stays taken.
            if _is_unheard(said):
                _quietly(failed.pop().close)
            elif len(failed) > HELD:
                _quietly(failed.pop(0).close)
            yield RETRY_S
    finally:
        for raw in failed:
            _quietly(raw.close)


def _begun(box: Any, raw: Any) -> Steps:
    """Wait for a session to start; return why it did not, "" if it did."""
    start = box.api.types.constants("GuestSessionWaitForFlag")["Start"]
    deadline = time.monotonic() + ATTEMPT_S
    while time.monotonic() < deadline:
        try:
            raw.waitForArray([start], SLICE_MS)
        except Exception as error:
            fault = compat.explain(error)
            if fault is None:
                raise
            if not _is_timeout(fault):
                return str(fault)
        status = _name(box, "GuestSessionStatus", raw)
        if status == "Started":
            return ""
        if status not in ("Undefined", "Starting"):
            return f"the session ended at once: {status}"
        yield SLICE_MS / 1000
    return f"no session within {ATTEMPT_S:.0f} s"


def _close_orphans(guest: Any) -> None:
    """End sessions of bridges that were killed: VirtualBox keeps them, and has room for few."""
    for one in guest.sessions:
        owner = re.match(OWNER + r" (\d+) ", str(one.name))
        if owner and not _runs(int(owner[1])):
            _quietly(one.close)


def _runs(pid: int) -> bool:
    if os.name == "nt":  # there os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_unheard(text: str) -> bool:
    """Tell whether the guest never heard of a session."""
    return "not ready" in text


def _is_refusal(text: str) -> bool:
    return "able to logon" in text or "AUTHENTICATION_FAILURE" in text or "log on" in text


# Commands


def start(box: Any, *, session: int, exe: str, argv: list[str], env: list[str]) -> Steps:
    """Start a command; return its number here and its pid there."""
    opened = box.kept(session)
    types = box.api.types
    flags = types.constants("ProcessCreateFlag")
    arguments = compat.process_create_arguments(
        types.inputs("IGuestSession", "processCreate"),
        exe,
        argv,
        "",  # a wrong folder costs 5 s, and is reported as a missing program
        env,
        [flags["WaitForStdOut"], flags["WaitForStdErr"]],
        0,
    )
    raw = opened.raw.processCreate(*arguments)
    yield from _started(box, raw)
    return {"process": opened.keep(_Process(opened, raw)), "pid": int(raw.PID)}


def _started(box: Any, raw: Any) -> Steps:
    wait = box.api.types.constants("ProcessWaitForFlag")["Start"]
    deadline = time.monotonic() + START_S
    while _name(box, "ProcessStatus", raw) in ("Undefined", "Starting"):
        _guest_call(lambda: raw.waitForArray([wait], SLICE_MS), "guest.spawn", may_wait=True)
        if time.monotonic() > deadline:
            raise Fault("guest.silent", f"the command was not started within {START_S} s")
        yield SLICE_MS / 1000


def read(box: Any, *, process: int) -> Steps:
    """Return the next piece of output, or how the command ended. Both streams are drained."""
    one = box.kept(process)
    if one.is_fresh:  # not even the quickest command has ended yet
        one.is_fresh = False
        yield FIRST_S
    begin = time.monotonic()
    while True:
        if _name(box, "MachineState", one.session.machine, "state") != "Paused":
            for stream in (STDOUT, STDERR):
                data = _guest_call(lambda: one.raw.read(stream, READ_BYTES, MOVE_MS), "guest.read")  # noqa: B023
                if data:
                    return Reply({"stream": stream}, bytes(data))
            status = _name(box, "ProcessStatus", one.raw)
            if status != "Started":
                one.session.forget(process)
                return {"status": status, "code": int(one.raw.exitCode)}
        silence = time.monotonic() - begin
        yield min(LONGEST_S, max(FIRST_S, SHARE * silence))


def write(box: Any, *, process: int, end: bool, body: bytes = b"") -> Steps:
    """Write to standard input, all of it; what the command will never read is dropped."""
    one = box.kept(process)
    last = box.api.types.constants("ProcessInputFlag")["EndOfFile"]
    view, begin = body, time.monotonic()
    while view or end:
        if _name(box, "ProcessStatus", one.raw) != "Started":
            return
        piece = view[:WRITE_BYTES]
        is_last = end and len(piece) == len(view)
        try:
            count = int(one.raw.write(STDIN, last if is_last else 0, piece, MOVE_MS))
        except Exception as error:
            if compat.explain(error) is None:
                raise
            return  # it has closed its input, or ended
        view = view[count:]
        if is_last and not view:
            return
        if count:
            begin = time.monotonic()
        yield 0.0 if count else min(LONGEST_S, max(FIRST_S, SHARE * (time.monotonic() - begin)))


def terminate(box: Any, *, process: int) -> None:
    """Kill a command, but not what it has started. Fine if it is gone."""
    one = box.drop(process)
    if one is not None:
        one.session.forget(process)
        _quietly(one.raw.terminate)


# Files


def query(box: Any, *, session: int, path: str) -> dict[str, Any]:
    """Return what is at a path, links followed."""
    info = _guest_call(lambda: box.kept(session).raw.fsObjQueryInfo(path, True), "guest.file")
    return {
        "type": _name(box, "FsObjType", info, "type"),
        "size": int(info.objectSize),
        "attributes": str(info.fileAttributes)[:40],
        "mtime_ns": int(info.modificationTime),
    }


def open_file(box: Any, *, session: int, path: str, write: bool, mode: int) -> int:
    """Open a file; return its number. With `write` it is new, and has that mode from the start."""
    opened = box.kept(session)
    constants = box.api.types.constants
    access = constants("FileAccessMode")["WriteOnly" if write else "ReadOnly"]
    action = constants("FileOpenAction")["CreateOrReplace" if write else "OpenExisting"]
    raw = _guest_call(lambda: opened.raw.fileOpen(path, access, action, mode), "guest.file")
    number: int = opened.keep(_File(opened, raw))
    return number


def read_file(box: Any, *, file: int, size: int) -> Reply:
    """Return the next bytes, none at the end."""
    raw = box.kept(file).raw
    size = min(size, FILE_READ_BYTES)
    return Reply(None, bytes(_guest_call(lambda: raw.read(size, MOVE_MS), "guest.file") or b""))


def write_file(box: Any, *, file: int, body: bytes) -> Steps:
    """Write all of it."""
    raw, view = box.kept(file).raw, body
    while view:
        piece = view[:FILE_WRITE_BYTES]
        count = int(_guest_call(lambda: raw.write(piece, MOVE_MS), "guest.file"))  # noqa: B023
        if not 0 < count <= len(piece):
            raise Fault("guest.file", f"wrote {count} of {len(piece)} bytes")
        view = view[count:]
        yield 0.0


def close_file(box: Any, *, file: int) -> None:
    """Close a file; what was written is in it then, or this fails."""
    one = box.kept(file)
    one.session.forget(file)
    _guest_call(one.raw.close, "guest.file")


def rename(box: Any, *, session: int, source: str, target: str) -> None:
    """Rename a file; what is at the target is replaced."""
    flag = box.api.types.constants("FsObjRenameFlag")["Replace"]
    raw = box.kept(session).raw
    _guest_call(lambda: raw.fsObjRename(source, target, [flag]), "guest.file")


def remove(box: Any, *, session: int, path: str) -> None:
    """Remove a file."""
    raw = box.kept(session).raw
    _guest_call(lambda: raw.fsObjRemove(path), "guest.file")


# What VirtualBox says

_labels: dict[str, dict[int, str]] = {}  # of its enumerations; they never change


def _guest_call(call: Callable[[], Any], kind: str, *, may_wait: bool = False) -> Any:
    """Call, and tell the guest's refusals from VirtualBox's own."""
    try:
        return call()
    except Exception as error:
        fault = compat.explain(error)
        if fault is None:
            raise
        if _is_timeout(fault):
            if may_wait:
                return None
            raise Fault("guest.silent", str(fault)) from error
        if fault.code == 0x80BB0005:  # VBOX_E_IPRT_ERROR: in the guest, all others are ours
            raise Fault(kind, str(fault), fault.code) from error
        raise


def _is_timeout(fault: Fault) -> bool:
    return "VERR_TIMEOUT" in str(fault) or "timed out" in str(fault).lower()


def _name(box: Any, kind: str, thing: Any, attribute: str = "status") -> str:
    """Return the label of an enumeration's value."""
    if kind not in _labels:
        constants = box.api.types.constants(kind)
        _labels[kind] = {number: label for label, number in reversed(list(constants.items()))}
    number = int(getattr(thing, attribute))
    return _labels[kind].get(number, str(number))


def _is_alive(box: Any, machine: Any) -> bool:
    states = ("Running", "Paused", "LiveSnapshotting", "OnlineSnapshotting", "Teleporting")
    return _name(box, "MachineState", machine, "state") in states


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:  # it is gone already
        return


OPERATIONS: dict[str, Operation] = {
    "guest.session": session,
    "guest.start": start,
    "guest.read": read,
    "guest.write": write,
    "guest.terminate": terminate,
    "guest.query": query,
    "guest.open": open_file,
    "guest.read_file": read_file,
    "guest.write_file": write_file,
    "guest.close": close_file,
    "guest.rename": rename,
    "guest.remove": remove,
}
