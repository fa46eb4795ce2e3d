"""Exit codes: which there are, and which one an error earns.

docs/how-to/exit-codes.md says the same to users. Errors are looked up only when one comes.
"""

import errno
from enum import IntEnum


class Exit(IntEnum):
    """What `hostctl` tells the shell. `exec` passes the guest's own code through."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    WRONG_STATE = 4
    TIMED_OUT = 5

    # `exec` only, as docker, env and timeout have them: out of the way of a command's own codes.
    COMMAND_TIMED_OUT = 124
    OURS = 125
    REFUSED = 126
    NO_MATCH = 127

    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


GUESTS = frozenset({"exec", "run", "shell"})
"""Commands that end with a guest's own code."""


class UsageError(Exception):
    """The command line cannot be obeyed; the message says which word, and what to write."""


def exit_for(error: BaseException, command: str) -> Exit:
    """Return the code for an error which ended `command`."""
    if command in GUESTS:
        return _exit_of_exec(error)
    if isinstance(error, UsageError):
        return Exit.USAGE
    # Here and not at the top: the tree of errors is loaded by the command which raised one.
    from hostctl import errors

    if isinstance(error, errors.ConfigError):
        return Exit.USAGE
    if _is_unknown_name(error) or getattr(error, "errno", None) == errno.ENOENT:
        return Exit.NOT_FOUND
    taken = errors.MachineExists | errors.SnapshotExists | errors.TemplateExists
    if isinstance(error, errors.WrongState | errors.TemplateInUse | taken):
        return Exit.WRONG_STATE
    if isinstance(error, errors.PortsBusy | TimeoutError):  # Busy and all deadlines are the latter
        return Exit.TIMED_OUT
    return Exit.FAILED


def _is_unknown_name(error: BaseException) -> bool:
    """Tell our own "no machine, snapshot, image of that name" from a KeyError that is a bug."""
    from hostctl.errors import HostctlError
    from hostctl_images.errors import ImageNotFound

    is_lookup = isinstance(error, HostctlError) and isinstance(error, LookupError)
    return is_lookup or isinstance(error, ImageNotFound)


def _exit_of_exec(error: BaseException) -> Exit:
    if isinstance(error, UsageError):
        return Exit.OURS
    from hostctl.errors import NothingMatches
    from hostctl_channels.errors import Refused, SpawnFailed

    if isinstance(error, NothingMatches):
        return Exit.NO_MATCH

    refused = isinstance(error, Refused | SpawnFailed)
    return Exit.REFUSED if refused else Exit.OURS
