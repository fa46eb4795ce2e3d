"""The bridge's and VirtualBox's errors → ours, once, at the border."""

from __future__ import annotations

from ...errors import BackendError, DeadlineExceeded, ToolMissing, Unsupported
from .bridge.wire import Failure

__all__ = [
    "ACCESS_DENIED",
    "BUSY_CODES",
    "NOT_REGISTERED",
    "BridgeDied",
    "GuestFault",
    "NotFound",
    "VirtualBoxError",
    "translate",
]

# Result codes of VirtualBox's API (VirtualBox.xidl), and of XPCOM and COM below it.
OBJECT_NOT_FOUND = 0x80BB0001
INVALID_VM_STATE = 0x80BB0002
VM_ERROR = 0x80BB0003
FILE_ERROR = 0x80BB0004
IPRT_ERROR = 0x80BB0005
INVALID_OBJECT_STATE = 0x80BB0007
NOT_SUPPORTED = 0x80BB0009
OBJECT_IN_USE = 0x80BB000C
ACCESS_DENIED = 0x80070005  # E_ACCESSDENIED: among others, a session lock that is not there yet
NOT_REGISTERED = 0x80040154  # the class that VBoxSVC serves: it has just died, and another comes up
BUSY_CODES = frozenset({INVALID_OBJECT_STATE, OBJECT_IN_USE})  # worth another try, soon

INSTALL = (
    "install VirtualBox's Python bindings for one of this host's Pythons (on Debian they come with "
    "virtualbox), and pyvbox: pip install 'hostctl[virtualbox]'; HOSTCTL_VBOX_PYTHON names another"
)


class VirtualBoxError(BackendError):
    """VirtualBox refused a call. `code` is its own result code."""

    def __init__(self, message: str, code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code

    @property
    def is_busy(self) -> bool:
        """True if the same call may succeed a moment later."""
        return self.code in BUSY_CODES


class GuestFault(BackendError):
    """Guest control failed. `kind` is the bridge's word for how: login, absent, silent, file…"""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotFound(VirtualBoxError, LookupError):
    """VirtualBox has no such object: machine, medium, snapshot."""


class BridgeDied(BackendError):
    """The bridge, or VBoxSVC behind it, ended in the middle of a request.

    What was asked for may be done or not: ask for the state. The next request starts it anew.
    """


def translate(failure: Failure, what: str) -> BackendError:
    """Return our error for what the bridge says; `what` was tried."""
    said = one_line(failure.text)
    if failure.kind == "vbox":
        kind = NotFound if failure.code == OBJECT_NOT_FOUND else VirtualBoxError
        if failure.code == NOT_SUPPORTED:
            return Unsupported(f"{what}: VirtualBox cannot do that: {said}", what)
        return kind(f"{what}: {said}", failure.code)
    if failure.kind == "missing":
        return ToolMissing(said.partition(":")[0], hint=INSTALL)
    if failure.kind == "unknown":
        hint = "use a hostctl that knows it, or VBoxManage alone: HOSTCTL_VBOX_API=manage"
        return Unsupported(said, "this VirtualBox", hint=hint)
    if failure.kind == "unsupported":
        return Unsupported(f"{what}: {said}", what)
    if failure.kind.startswith("guest.") or failure.kind == "gone":
        return GuestFault(said, failure.kind.removeprefix("guest."))
    if failure.kind == "late":
        return DeadlineExceeded(f"{what}: {said}")
    if failure.kind == "died":
        return BridgeDied(f"{what}: {said}")
    if failure.kind == "bug":
        return BackendError(f"{what}: the bridge failed: {failure.text.strip()}")
    return BackendError(f"{what}: {said}")


def one_line(text: str) -> str:
    """Return VirtualBox's words as one lower-case line."""
    said = " ".join(text.split()).rstrip(".")
    is_name = said.partition(" ")[0][1:].lower() != said.partition(" ")[0][1:]  # VirtualBox
    return said if is_name else said[:1].lower() + said[1:]
