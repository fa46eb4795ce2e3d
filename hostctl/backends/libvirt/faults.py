"""libvirt's errors → ours, once, at the border."""

from __future__ import annotations

from typing import Any

from ...errors import BackendError, ConfigError, Unsupported

__all__ = ["DomainGone", "LibvirtError", "is_absent", "translate"]

# virErrorNumber, from libvirt/virterror.h; named here so that tables need no library.
NO_SUPPORT, INVALID_CONN, AUTH_FAILED = 3, 6, 45
NO_CONNECT, SYSTEM_ERROR, NO_DOMAIN, OPERATION_DENIED = 5, 38, 42, 29
NO_STORAGE_POOL, NO_STORAGE_VOL, NO_DOMAIN_SNAPSHOT = 49, 50, 72
ACCESS_DENIED = 88
_ABSENT = frozenset({NO_DOMAIN, NO_STORAGE_POOL, NO_STORAGE_VOL, NO_DOMAIN_SNAPSHOT})

_HINTS = {
    NO_CONNECT: "is libvirtd running there? try: virsh --connect '{uri}' uri",
    SYSTEM_ERROR: "is libvirtd running there? try: virsh --connect '{uri}' uri",
    AUTH_FAILED: "may this user manage machines? on Debian: adduser USER libvirt",
    OPERATION_DENIED: "may this user manage machines? on Debian: adduser USER libvirt",
    ACCESS_DENIED: "may this user manage machines? on Debian: adduser USER libvirt",
}


class LibvirtError(BackendError):
    """libvirt refused a call, or its connection broke. `code` is its own error number."""

    def __init__(self, message: str, code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DomainGone(LibvirtError):
    """The domain is not defined any more."""


def translate(err: Any, what: str, uri: str) -> BackendError:
    """Return our error for a libvirtError."""
    code = err.get_error_code() or 0
    said = str(err).removeprefix("internal error: ")
    if said[1:2].islower():  # a sentence, not a name
        said = said[:1].lower() + said[1:]
    if code == NO_SUPPORT:
        return Unsupported(f"{what}: libvirt at {uri} cannot do that: {said}", what)
    if code == NO_DOMAIN:
        return DomainGone(f"{what}: {said}", code, hint=f"virsh --connect '{uri}' list --all")
    hint = _HINTS.get(code)
    return LibvirtError(f"{what}: {said}", code, hint=hint and hint.format(uri=uri))


def is_absent(err: BaseException) -> bool:
    """Tell whether an error says that what was looked for is not there."""
    return isinstance(err, LibvirtError) and err.code in _ABSENT


def not_trusted(path: object) -> ConfigError:
    """Return the refusal to guess what kind of disk a file is."""
    return ConfigError(
        f"disk image {path}: its format is not told by its name",
        hint="say its format, for instance format=raw or format=qcow2",
    )
