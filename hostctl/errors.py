"""The error tree: everything hostctl raises on purpose, in one place.

::

    HostctlError                      .hint: what to do next, or None
    ├── ConfigError                   (ValueError) what was asked for cannot be
    ├── BackendError                  the hypervisor, or this host
    │   ├── MachineNotFound           (LookupError)
    │   ├── NothingMatches            (LookupError) .selector: a pattern or tag without a machine
    │   ├── MachineExists
    │   ├── WrongState                .state, .move, .moves: what is allowed now
    │   ├── Busy                      (TimeoutError) .holder_pid: another hostctl is at work
    │   ├── ToolMissing               .tool: a program that must be installed
    │   ├── ToolFailed                .argv, .returncode, .stderr
    │   ├── BootFailed                .stderr, .console: what QEMU and the guest said last
    │   ├── MonitorError              .command, .reason: QEMU refused, or does not answer
    │   ├── AttachFailed              no foothold in the guest, or no agent came of it
    │   ├── DeadlineExceeded          (TimeoutError)
    │   ├── MemoryShort               .needed_bytes, .available_bytes: nothing was started
    │   ├── OutputWaits               what a command said is not read on: nothing can be saved
    │   ├── Unsupported               .capability: what this hypervisor, or this one's way, cannot
    │   ├── SnapshotError             .tag
    │   │   ├── SnapshotNotFound      (LookupError)
    │   │   └── SnapshotExists
    │   └── TemplateError             .name
    │       ├── PoolNotFound          (LookupError) the template has none
    │       ├── TemplateNotFound      (LookupError)
    │       ├── TemplateExists
    │       ├── TemplateInUse         .users: what has to go first
    │       └── TemplateUnfit         another QEMU, or damaged
    ├── GroupFailed                   .outcomes: some machines of a group failed
    ├── Skipped                       not done, or not to its end, because another machine failed
    ├── ChannelError                  the line to the guest   ┐
    ├── ProtocolError                 bytes that break rules   │ hostctl_channels.errors
    └── GuestError                    the guest said no        ┘
        ├── CommandFailed             .result                      (of hostctl_channels.errors)
        │   └── HookFailed            the script of a new clone failed; the clone is gone
        └── HostileTree               .path: what a guest sent may not be written on this host

A message is one lower-case line: what was tried, on what, what came back. The way out is in `hint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hostctl_channels.errors import (
    ChannelClosed,
    ChannelError,
    ChannelReset,
    ChannelTimeout,
    CommandFailed,
    GuestError,
    HostctlError,
    JobNotFound,
    LocalProtocolError,
    LogCut,
    OutputTooLarge,
    PortHeld,
    PortsBusy,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    TransferFailed,
)

if TYPE_CHECKING:
    from hostctl_channels.interface import Result

    from .fanout import Outcome

__all__ = [
    "AttachFailed",
    "BackendError",
    "BootFailed",
    "Busy",
    "ChannelClosed",
    "ChannelError",
    "ChannelReset",
    "ChannelTimeout",
    "CommandFailed",
    "ConfigError",
    "DeadlineExceeded",
    "GroupFailed",
    "GuestError",
    "HookFailed",
    "HostctlError",
    "HostileTree",
    "JobNotFound",
    "LocalProtocolError",
    "LogCut",
    "MachineExists",
    "MachineNotFound",
    "MemoryShort",
    "MonitorError",
    "NothingMatches",
    "OutputTooLarge",
    "OutputWaits",
    "PoolNotFound",
    "PortHeld",
    "PortsBusy",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "Skipped",
    "SnapshotError",
    "SnapshotExists",
    "SnapshotNotFound",
    "TemplateError",
    "TemplateExists",
    "TemplateInUse",
    "TemplateNotFound",
    "TemplateUnfit",
    "ToolFailed",
    "ToolMissing",
    "TransferFailed",
    "Unsupported",
    "WrongState",
]


class ConfigError(HostctlError, ValueError):
    """What was asked for cannot be."""


class BackendError(HostctlError):
    """The hypervisor, or this host, failed."""


class OutputWaits(BackendError):
    """The guest has said something that nobody reads, and a snapshot would lose more than that."""

    def __init__(self, port: str) -> None:
        super().__init__(
            f"output of the guest waits at {port} for its reader, and cannot be saved with it",
            hint="let the command that runs there be read on, or end it; then save again",
        )


class MachineNotFound(BackendError, LookupError):
    """No machine of that name in this state directory."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no machine named {name!r}", hint="hostctl list")
        self.name = name


class NothingMatches(BackendError, LookupError):
    """A pattern or a tag means no machine, or no job; nothing was done."""

    def __init__(self, selector: str, what: str = "machine") -> None:
        super().__init__(
            f"no {what} matches {selector!r}", hint="--allow-empty makes that no error"
        )
        self.selector = selector


class MachineExists(BackendError):
    """A machine of that name is there already; it was not touched."""

    def __init__(self, name: str) -> None:
        super().__init__(f"machine {name!r} exists already", hint=f"hostctl delete {name}")
        self.name = name


class WrongState(BackendError):
    """The machine's state does not allow this move; nothing was done."""

    def __init__(
        self, name: str, state: str, move: str, moves: Sequence[str], *, hint: str | None = None
    ) -> None:
        super().__init__(f"cannot {move} machine {name!r}: it is {state}", hint=hint)
        self.name = name
        self.state = state
        self.move = move
        self.moves = tuple(moves)


class Busy(BackendError, TimeoutError):
    """Another hostctl held the lock until our deadline; nothing was done."""

    def __init__(self, what: str, holder_pid: int | None, doing: str | None = None) -> None:
        holder = f"process {holder_pid}" if holder_pid else "another process"
        doing = f" ({doing})" if doing else ""
        super().__init__(f"{what} is busy: {holder}{doing} holds its lock", hint="try again later")
        self.holder_pid = holder_pid


class ToolMissing(BackendError):
    """A program of the host that hostctl needs is not installed."""

    def __init__(self, tool: str, *, hint: str | None = None) -> None:
        super().__init__(f"program {tool!r} not found on this host", hint=hint)
        self.tool = tool


class ToolFailed(BackendError):
    """A program of the host ended with an error."""

    def __init__(self, argv: Sequence[str], returncode: int | None, stderr: str) -> None:
        end = "ran out of time" if returncode is None else f"ended with status {returncode}"
        last = stderr.strip().splitlines()[-1:] or ["no message"]
        super().__init__(f"{argv[0]} {end}: {last[0]}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


class BootFailed(BackendError):
    """QEMU ended, or the guest never answered. `stderr` and `console` are their last words."""

    def __init__(
        self, message: str, *, stderr: str = "", console: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr
        self.console = console


class MonitorError(BackendError):
    """QEMU refused a monitor command, or its monitor does not answer."""

    def __init__(self, command: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"qemu monitor: {command}: {reason}", hint=hint)
        self.command = command
        self.reason = reason


class AttachFailed(BackendError):
    """The agent could not be brought into the guest, or taken out of it."""


class DeadlineExceeded(BackendError, TimeoutError):
    """The operation did not end in time."""


class MemoryShort(BackendError):
    """New machines may need more memory than this host has; none of them was started."""

    def __init__(self, message: str, needed_bytes: int, available_bytes: int) -> None:
        hint = "stop or delete machines, make fewer, or take the risk with --overcommit"
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class Unsupported(BackendError):
    """The hypervisor, or the way in which we reach it, lacks `capability`; nothing was done."""

    def __init__(self, message: str, capability: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.capability = capability


class SnapshotError(BackendError):
    """A snapshot could not be saved, restored or deleted."""

    def __init__(self, message: str, tag: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tag = tag


class SnapshotNotFound(SnapshotError, LookupError):
    """The machine has no snapshot of that tag."""

    def __init__(self, name: str, tag: str) -> None:
        super().__init__(
            f"machine {name!r} has no snapshot {tag!r}", tag, hint=f"hostctl snapshot list {name}"
        )


class TemplateError(BackendError):
    """Something about the template `name`."""

    def __init__(self, message: str, name: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class TemplateNotFound(TemplateError, LookupError):
    """There is no template of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no template named {name!r}", name, hint="hostctl template list")


class PoolNotFound(TemplateError, LookupError):
    """No clones of that template are kept waiting."""

    def __init__(self, name: str) -> None:
        super().__init__(f"template {name!r} has no pool", name, hint="hostctl pool list")


class TemplateExists(TemplateError):
    """There is a template of that name already; it was not touched."""

    def __init__(self, name: str) -> None:
        hint = f"hostctl template delete {name}"
        super().__init__(f"template {name!r} exists already", name, hint=hint)


class TemplateInUse(TemplateError):
    """Machines that came of the template are still there: their disks and RAM lie in it."""

    def __init__(self, name: str, users: Sequence[str], *, hint: str | None = None) -> None:
        shown = ", ".join(users[:5]) + (", …" if len(users) > 5 else "")
        text = f"template {name!r} is in use by {shown}"
        super().__init__(text, name, hint=hint or "delete them first")
        self.users = tuple(users)


class TemplateUnfit(TemplateError):
    """The template does not fit the present QEMU, or its files are damaged; no clone was made."""

    def __init__(self, name: str, why: str, *, hint: str | None = None) -> None:
        again = f"hostctl template delete {name}"
        super().__init__(f"template {name!r} cannot be used: {why}", name, hint=hint or again)
        self.why = why


class SnapshotExists(SnapshotError):
    """The machine has a snapshot of that tag already; it was not touched."""

    def __init__(self, name: str, tag: str) -> None:
        super().__init__(
            f"machine {name!r} has a snapshot {tag!r} already",
            tag,
            hint=f"hostctl snapshot delete {name} {tag}",
        )


class Skipped(HostctlError):
    """It was not done on this machine, or given up half way, because another one failed first."""


class GroupFailed(HostctlError):
    """Some machines of a group failed; `outcomes` are theirs, the others did what was asked."""

    def __init__(self, message: str, outcomes: Sequence[Outcome[object]]) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)


class HookFailed(CommandFailed):
    """A new clone's script did not end with status 0; the clone was removed.

    `result` has all that it printed, the message its last lines.
    """

    def __init__(self, name: str, result: Result) -> None:
        said = (result.stdout + result.stderr).decode("utf-8", "backslashreplace").split("\n")
        lines = ["".join(c if c.isprintable() else "?" for c in line.strip()) for line in said]
        last = " | ".join([line for line in lines if line][-3:])[-300:] or "it printed nothing"
        super().__init__(f"clone {name!r}: its on-clone script: {result.exit}: {last}", result)


class HostileTree(GuestError):
    """A tree that a guest sent is broken, or would reach outside its folder. Nothing was changed.

    `path` is the entry's, as the guest named it, or None.
    """

    def __init__(self, message: str, path: bytes | None = None, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path
