"""The errors of everything below a machine, one tree.

HostctlError
├── ChannelError
│   ├── ChannelClosed       the far end of the line is gone: QEMU ended, the port was removed
│   ├── ChannelReset        the guest's timeline was cut under a request: restore, reset, agent
restarted
│   ├── ChannelTimeout      no answer in time; also a TimeoutError
│   ├── PortHeld            the line of one port is in somebody else's hands
│   ├── PortsBusy           every port of a kind is taken; also a TimeoutError
│   └── ReplyTooLong        what carries the guest's answers cannot carry this one
├── ProtocolError
│   ├── LocalProtocolError  the caller asked for something the wire cannot carry; also a ValueError
│   └── RemoteProtocolError the guest broke the protocol
└── GuestError              the guest did what was asked, and it failed there
    ├── CommandFailed       a command ended with another status than 0
    ├── RequestFailed       the guest's system said no; also an OSError with its errno
    │   ├── SpawnFailed     a command could not be started
    │   └── TransferFailed  a file could not be read or written
    │       └── ShortSource the source of a put ended early
    ├── OutputTooLarge      a command printed more than the caller was ready to keep
    ├── JobNotFound         the guest knows no job of that id; also a LookupError
    ├── LogCut              a job's log is shorter than what was read of it
    ├── LoginFailed         a console wants another user or password
    └── Refused             this guest lacks what the request needs
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interface import Result

__all__ = [
    "ChannelClosed",
    "ChannelError",
    "ChannelReset",
    "ChannelTimeout",
    "CommandFailed",
    "GuestError",
    "HostctlError",
    "JobNotFound",
    "LocalProtocolError",
    "LogCut",
    "LoginFailed",
    "OutputTooLarge",
    "PortHeld",
    "PortsBusy",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "ReplyTooLong",
    "RequestFailed",
    "ShortSource",
    "SpawnFailed",
    "TransferFailed",
]


class HostctlError(Exception):
    """Root of all errors.

    `str(error)` is one lower-case line; `hint` says what to do next, if anything can be done.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ChannelError(HostctlError):
    """The line to the guest failed; nothing is said about the guest's own state."""


class ChannelClosed(ChannelError):
    """The far end of the line is gone for good."""


class ChannelReset(ChannelError):
    """The guest's timeline was cut while a request was under way.

    What it did is unknown. The next request works.
    """


class ChannelTimeout(ChannelError, TimeoutError):
    """No answer in time. The port was given up; the next request uses a fresh connection."""


class PortHeld(ChannelError):
    """Somebody else, who does not know our locks, has the line of a port. Nothing was sent."""


class PortsBusy(ChannelError, TimeoutError):
    """Every port of the kind needed is held by other tasks or processes."""


class ProtocolError(HostctlError):
    """A violation of docs/PROTOCOL.md."""


class LocalProtocolError(ProtocolError, ValueError):
    """The caller asked for what the wire cannot carry. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The guest sent what the protocol does not allow. The connection is given up."""


class GuestError(HostctlError):
    """The guest understood and the operation failed there."""


class CommandFailed(GuestError):
    """A command did not end with status 0. `result` has everything it printed."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


class RequestFailed(GuestError, OSError):
    """A request failed in the guest.

    `errno` is the guest's, 5 (EIO) where its tools told no better.
    """

    def __init__(
        self, errno: int, message: str, *, path: bytes | None = None, hint: str | None = None
    ) -> None:
        HostctlError.__init__(self, message, hint=hint)
        self.errno = errno
        self.strerror = os.strerror(errno)
        self.filename = None if path is None else os.fsdecode(path)


class SpawnFailed(RequestFailed):
    """A command could not be started: no such folder or user, no free stream port. Nothing ran."""


class TransferFailed(RequestFailed):
    """A file operation failed in the guest; a put's target is as it was before."""


class ShortSource(TransferFailed):
    """The source of a put ended early; the target is as it was before."""


class ReplyTooLong(ChannelError):
    """The guest's answer is longer than what carries it can take, and lost; the line is well."""


class OutputTooLarge(GuestError):
    """A command printed more than `max_output_bytes`; it was killed."""


class JobNotFound(GuestError, LookupError):
    """The guest knows no such job: it was forgotten, or the guest started anew or went back."""

    def __init__(self, job: str) -> None:
        super().__init__(
            f"no job {job!r}",
            hint="a guest forgets its jobs when it boots, and a restored one those begun since the "
            "snapshot: hostctl jobs",
        )
        self.job = job


class LogCut(GuestError):
    """Less is kept of a job's log than was read of it before."""


class LoginFailed(GuestError):
    """The console's login was refused. It is not tried again: that may lock the user out."""


class Refused(GuestError):
    """The guest or the channel lacks a capability; `capability` names it."""

    def __init__(self, message: str, capability: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.capability = capability
