"""Where programs are in the guest, so that the second call of one needs no shell to find it."""

from __future__ import annotations

from typing import Final

from ..interface import Command
from .control import Session
from .process import run

__all__ = ["Places", "is_carried"]

_MAX: Final = 256  # names that are remembered
_MAX_PATH: Final = 4096
_FIND: Final = b'command -v -- "$1"'


class Places:
    """Of one session. A shell costs 0.1 s in a guest that is interpreted, a look once the same."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seen: dict[bytes, str] = {}  # "" is not looked for yet, or nothing to start directly

    async def of(self, command: Command) -> str:
        """Return the path of the program, "" if a shell must start it.

        Raises what Session.start does.
        """
        name = command.argv[0]
        if command.cwd is not None or command.user is not None or not _is_simple(command):
            return ""
        if name.startswith(b"/"):
            return name.decode()
        if b"/" in name or len(self._seen) > _MAX:
            return ""
        if name not in self._seen:
            self._seen[name] = ""
        elif not self._seen[name]:
            self._seen[name] = await self._find(name)
        return self._seen[name].strip("?")

    def forget(self, command: Command) -> None:
        """Leave a program to the shell from now on: it is not where it was."""
        self._seen[command.argv[0]] = "?"

    async def _find(self, name: bytes) -> str:
        argv = (b"/bin/sh", b"-c", _FIND, b"sh", name)
        _, said, _ = await run(self.session, argv, b"", _MAX_PATH)
        path = said.rstrip(b"\n")
        is_path = path.startswith(b"/") and path.isascii() and path.decode().isprintable()
        return path.decode() if is_path else "?"  # a builtin of the shell, an alias, nothing


def is_carried(text: bytes) -> bool:
    """Tell whether guest control hands on a word or a path as it is.

    VBoxService translates from UTF-8 to its locale's encoding. Where that is C, as of a service, it
    refuses all that is not ASCII: VERR_PROC_NO_ARG_TRANSLATION.
    """
    return text.isascii()


def _is_simple(command: Command) -> bool:
    return all(map(is_carried, (*command.argv, *command.env.values())))
