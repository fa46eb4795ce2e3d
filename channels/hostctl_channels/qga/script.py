"""A command as guest-exec takes it: as it is where that will do, else by way of the guest's sh.

guest-exec knows no folder and no user, its env replaces the agent's own, and its JSON carries no
bytes that are not UTF-8. Standard input carries all: a word of any bytes goes there, before the
command's own input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..errors import GuestError, Refused, SpawnFailed
from ..interface import Buffer, Capability, Command
from .wire import is_carried, printable

__all__ = ["SLAY", "Call", "Carries", "Oops", "call_of", "quote", "script_call"]

Carries = Callable[[bytes], bool]
"""Tells whether an agent takes a word as an argument."""

SHELL: Final = b"/bin/sh"
# Linux allows 128 KiB for one argument (MAX_ARG_STRLEN).
_MAX_WORD: Final = 120_000

# `read` takes byte by byte, so the command's own input is left for it; a newline has a name
# instead, for it would end the line.
_LOADER: Final = b"_n='\n'; IFS= read -r _l || exit 125; eval \"$_l\""

# Failures before the command's first instruction: a mark that only we know, and an errno.
_OOPS: Final = b"""_o() { printf '%%s %%s %%s' %s "$1" "$2" >&2; exit 125; }; """


class Call(NamedTuple):
    """Arguments of guest-exec."""

    path: bytes
    words: tuple[bytes, ...]
    data: Buffer | None


class Oops:
    """The mark by which a script's own failures are told from those of what it runs."""

    def __init__(self) -> None:
        self._mark = os.urandom(8).hex().encode()

    @property
    def function(self) -> bytes:
        """Shell text that defines `_o ERRNO TEXT`, which ends the script."""
        return _OOPS % self._mark

    def begins(self, text: bytes) -> bool:
        """Tell whether text of stderr is, or may become, a script's own failure."""
        return text.startswith(self._mark) or self._mark.startswith(text)

    def error(self, code: int | None, stderr: bytes, what: str) -> GuestError | None:
        """Return the failure a script reported, if it did."""
        head, _, rest = stderr.partition(b" ")
        found = re.fullmatch(rb"(\d{1,3}) (.*)", rest, re.DOTALL)
        if code != 125 or head != self._mark or not found:
            return None
        text = printable(found[2].decode("utf-8", "backslashreplace"))
        if found[1] == b"95":
            return Refused(f"{what}: this guest has no {text}", _CAPABILITIES.get(text, text))
        return SpawnFailed(int(found[1]), f"{what}: {text}")


_CAPABILITIES: Final = {
    "su": Capability.USER.value,
    "sha256sum": Capability.SHA256.value,
    "chown": Capability.OWNER.value,
    "touch": Capability.MTIME.value,
    "stat": Capability.METADATA.value,
}


def call_of(
    command: Command,
    data: Buffer | None,
    oops: Oops,
    spooled: bytes | None = None,
    carries: Carries = is_carried,
) -> Call:
    """Return the call that runs `command` with `data` as its standard input.

    Or with a file of the guest's, `spooled`, which has no name any more when the command begins.
    """
    is_plain = not (command.env or command.cwd or command.user or spooled)
    if is_plain and all(map(carries, command.argv)):
        return Call(command.argv[0], command.argv[1:], data)
    text = oops.function + _redirected(spooled) + _text(command)
    return script_call(text, data, carries=carries)


def _redirected(spooled: bytes | None) -> bytes:
    if spooled is None:
        return b""
    name = quote(spooled)
    return b"[ -r %s ] || _o 5 'its input is gone'; exec <%s; rm -f %s; " % (name, name, name)


def script_call(
    text: bytes,
    data: Buffer | None,
    words: Sequence[bytes] = (),
    carries: Carries = is_carried,
) -> Call:
    """Return the call that runs shell text with `words` as $1…; the words may hold any bytes."""
    if len(text) <= _MAX_WORD and all(map(carries, (text, *words))):
        return Call(SHELL, (b"-c", text, b"sh", *words), data)
    line = b"set -- " + b" ".join(map(quote, words)) + b"; eval " + quote(text)
    # Newlines are all in quotes here: close them, name the newline, open them again.
    line = line.replace(b"\n", b"'\"$_n\"'")
    return Call(SHELL, (b"-c", _LOADER, b"sh"), b"".join((line, b"\n", data or b"")))


def quote(word: bytes) -> bytes:
    """Return a word in single quotes."""
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def _text(command: Command) -> bytes:
    """Return shell text that becomes the command."""
    text = b""
    if command.cwd is not None:
        where = command.cwd if command.cwd.startswith(b"/") else b"./" + command.cwd
        # The path is not in the message: what the shell prints must stay short.
        text += b"CDPATH= cd %s 2>/dev/null || " % quote(where)
        text += b"{ [ -e %s ] || _o 2 'no such folder to run in'; " % quote(where)
        text += b"[ -d %s ] || _o 20 'not a folder to run in'; " % quote(where)
        text += b"_o 13 'cannot enter the folder to run in'; }; "
    text += b"".join(b"export %s=%s; " % (k, quote(v)) for k, v in command.env.items())
    text += b"set -- " + b" ".join(map(quote, command.argv)) + b"; "
    text += b"unset _l _n; "
    if command.user is None:
        return text + b'exec "$@"'
    user = quote(command.user.encode())
    text += b"command -v su >/dev/null || _o 95 su; "
    text += b"id -u %s >/dev/null 2>&1 || _o 2 'no such user'; " % user
    return text + b'exec su -s /bin/sh -c \'exec "$@"\' -- %s sh "$@"' % user


# SLAY SIGNAL PID: a command of the agent's and all its descendants; KILL until none is left.
# guest-exec gives a command no process group of its own (QEMU 7.2), so they are found in /proc. A
# pid whose parent is not our parent, the agent, was given to somebody else meanwhile.
SLAY: Final = rb"""
sig=$1 root=$2 hit=" $2 "
survey() {
	all=
	for s in /proc/[0-9]*/stat; do
		{ read -r t <"$s"; } 2>/dev/null || continue
		set -- ${t##*) }
		s=${s#/proc/}
		all="$all ${s%/stat}:${2-}"
	done
}
grow() {
	for s in $all; do
		case $hit in
		*" ${s%:*} "*) ;;
		*" ${s#*:} "*) hit="$hit${s%:*} " again=1 ;;
		esac
	done
}
pass=0
while :; do
	survey
	if [ "$all" ]; then case "$all " in *" $root:$PPID "*) ;; *) exit 0 ;; esac; fi
	again=1
	while [ "$again" ]; do again= && grow; done
	kill -s "$sig" $hit 2>/dev/null || exit 0
	[ "$sig" = KILL ] && [ "$((pass += 1))" -lt 3 ] || exit 0
done
"""
