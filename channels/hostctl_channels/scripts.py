"""The scripts that a staged channel runs in a guest: pure functions from requests to bytes of sh.

POSIX sh and the tools a request needs. A script that will not go on leaves a note, an errno (0: see
the words) and words, and ends with status 99.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from .errors import TransferFailed
from .interface import Command, FileInfo, PutOptions

__all__ = [
    "GetScript",
    "PutScript",
    "Shown",
    "command_script",
    "errno_of",
    "quoted",
    "show_script",
]

# The ends of what the guest's tools say, as in agent.sh
_ERRNOS: Final = (
    (b"permitted", errno.EPERM),
    (b"such file or directory", errno.ENOENT),
    (b"denied", errno.EACCES),
    (b"Not a directory", errno.ENOTDIR),
    (b"s a directory", errno.EISDIR),
    (b"left on device", errno.ENOSPC),
    (b"Read-only file system", errno.EROFS),
    (b"too long", errno.ENAMETOOLONG),
    (b"exceeded", errno.EDQUOT),
)

_SHOWN: Final = 4096  # bytes of output that come with their sizes, in one request for all

_REFUSE: Final = b"""\
refuse() {
	printf '%%s\\n' "$*" >%(note)s
	exit 99
}
tell() {
	t=
	while read -r l; do t="$t $l"; done <%(log)s
	refuse "0 $1:$t"
}
"""

_COMMAND: Final = b"""\
[ ! -e %(out)s ] || refuse 0 ran
%(checks)sexec >%(out)s 2>%(err)s <%(input)s
%(exports)sexec %(words)s
"""

_SHOW: Final = b"""\
o=%(folder)s/o.$1 e=%(folder)s/e.$1 n=%(folder)s/n.$1
a=$(wc -c <"$o") && b=$(wc -c <"$e") && {
	echo $a $b
	[ $((a + b)) -gt %(most)d ] || cat "$o" "$e"
} >"$n" && exit
rm -f "$n"
"""

_PUT: Final = b"""\
path=%(path)s part=%(part)s
case $1 in
open)
	[ ! -d "$path" ] || refuse "21 $path: is a directory"
	[ -d "${path%%/*}/" ] || refuse "2 $path: no such folder"
	umask 077
	printf '' 2>%(log)s >"$part" || tell "$path"
	;;
keep)
	dd if=%(piece)s of="$part" bs=%(step)d seek="$2" conv=notrunc 2>%(log)s || {
		rm -f "$part"
		tell "$path"
	}
	;;
end)
	[ -z "$2" ] || {
		s=$(sha256sum <"$part") && [ "${s%%%% *}" = "$2" ] || {
			rm -f "$part"
			refuse "5 $path: not what was sent"
		}
	}
	{
		%(settle)smv -f "$part" "$path"
	} 2>%(log)s || {
		rm -f "$part"
		tell "$path"
	}
	;;
esac
"""

_GET: Final = b"""\
path=%(path)s copy=%(copy)s
[ ! -f "$copy" ] || path=$copy
case $1 in
open)
	[ ! -d "$path" ] || refuse "21 $path: is a directory"
	[ -e "$path" ] || refuse "2 $path: No such file or directory"
	[ -r "$path" ] || refuse "13 $path: Permission denied"
	facts=$(stat -L -c '%%a %%Y' "$path" 2>/dev/null)
	if [ ! -f "$path" ] || [ ! -s "$path" ]; then
		umask 077
		dd if="$path" of="$copy" bs=64k count=1024 2>%(log)s || tell "$path"
		path=$copy
	fi
	sum=$(sha256sum <"$path" 2>/dev/null)
	printf '%%s|%%s|%%s\\n' "$(wc -c <"$path")" "$facts" "${sum%%%% *}" >%(note)s
	;;
cut) dd if="$path" of=%(piece)s bs=%(step)d skip="$2" count=1 2>%(log)s || tell "$path" ;;
esac
"""


def quoted(word: bytes) -> bytes:
    """Write a word, which holds no NUL, as a shell reads it."""
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def errno_of(text: bytes) -> int:
    """Guess an errno from what a tool said, EIO where it tells nothing."""
    said = text.strip()
    return next((number for end, number in _ERRNOS if said.endswith(end)), errno.EIO)


def command_script(command: Command, folder: bytes, token: bytes, *, fed: bool) -> bytes:
    """Return a script that becomes the command, its output in files of ours.

    It refuses to run twice. A file of output that is not there proves that it never began.
    """
    own = _files(folder, token)
    user = None if command.user is None else command.user.encode()
    words = [*map(quoted, command.argv)]
    if user is not None:
        words = [b"su -s /bin/sh -c 'exec \"$@\"' --", quoted(user), b"sh", *words]
    names = own | {
        b"checks": _checks(command.cwd, user),
        b"input": own[b"input"] if fed else b"/dev/null",
        b"exports": b"".join(
            b"export %s=%s\n" % (key, quoted(value)) for key, value in command.env.items()
        ),
        b"words": b" ".join(words),
    }
    return _REFUSE % names + _COMMAND % names


def _checks(cwd: bytes | None, user: bytes | None) -> bytes:
    text = b""
    if cwd is not None:
        word = quoted(cwd if cwd.startswith(b"/") else b"./" + cwd)
        text += b"cd %s 2>/dev/null || refuse 2 %s: no such folder to run in\n" % (word, word)
    if user is not None:
        word = quoted(user)
        text += b"id -u %s >/dev/null 2>&1 || refuse 2 no user %s\n" % (word, word)
    return text


def show_script(folder: bytes) -> bytes:
    """Return a script that notes for Shown what the command of a token, its word, printed."""
    return _SHOW % {b"folder": quoted(folder), b"most": _SHOWN}


class Shown(NamedTuple):
    """How much a command printed on both streams, and all of it if that is little."""

    sizes: tuple[int, int] = (0, 0)
    data: bytes = b""

    @classmethod
    def parse(cls, note: bytes) -> Shown:
        """Read what `show_script`'s script wrote down. Raises TransferFailed on anything else."""
        match = re.match(rb"([0-9]{1,18}) ([0-9]{1,18})\n", note)
        if match is None:
            raise TransferFailed(errno.EIO, "the sizes of the output are garbled")
        shown = cls((int(match[1]), int(match[2])), note[match.end() :])
        if not shown.is_whole and (sum(shown.sizes) <= _SHOWN or shown.data):
            raise TransferFailed(errno.EIO, "the output is not what its sizes say")
        return shown

    @property
    def is_whole(self) -> bool:
        """True if nothing is left to fetch."""
        return sum(self.sizes) == len(self.data)


@dataclass(frozen=True, slots=True)
class PutScript:
    """The steps of a put: `open`, `keep` for each piece, `end`. Each may be taken twice."""

    folder: bytes
    token: bytes
    path: bytes
    options: PutOptions
    step_bytes: int

    @property
    def part(self) -> bytes:
        """What becomes the file, beside it."""
        return b"%s/.hostctl-%s" % (self.path.rpartition(b"/")[0], self.token)

    def text(self, before: bytes) -> bytes:
        """Return the script, with a line before it."""
        names = _files(self.folder, self.token) | {
            b"path": quoted(self.path),
            b"part": quoted(self.part),
            b"step": self.step_bytes,
            b"settle": self._settle(),
        }
        return before + _REFUSE % names + _PUT % names

    def _settle(self) -> bytes:
        options = self.options
        mode = 0o644 if options.mode is None else options.mode
        text = b'chmod %o "$part" && ' % mode
        if options.owner:
            text = b'chown %s "$part" && ' % quoted(options.owner.encode()) + text
        if options.mtime_s is not None:
            text += b'touch -d @%d "$part" && ' % options.mtime_s
        return text


@dataclass(frozen=True, slots=True)
class GetScript:
    """The steps of a get: `open`, which notes facts, and `cut` for each slice."""

    folder: bytes
    token: bytes
    path: bytes
    step_bytes: int

    def text(self, before: bytes) -> bytes:
        """Return the script, with a line before it."""
        names = _files(self.folder, self.token) | {
            b"path": quoted(self.path),
            b"step": self.step_bytes,
        }
        return before + _REFUSE % names + _GET % names

    @staticmethod
    def facts(note: bytes) -> FileInfo:
        """Read what `open` wrote down. Raises TransferFailed on anything else."""
        match = re.fullmatch(
            rb"\s*([0-9]{1,18})\s*\|(?:([0-7]{1,5}) (-?[0-9]{1,12}))?\|([0-9a-f]{64})?\n", note
        )
        if match is None:
            raise TransferFailed(errno.EIO, "what the guest tells of the file makes no sense")
        size, mode, mtime, sha256 = match.groups()
        return FileInfo(
            int(size),
            None if mode is None else int(mode, 8),
            None if mtime is None else float(mtime),
            None if sha256 is None else sha256.decode(),
        )


def _files(folder: bytes, token: bytes) -> dict[bytes, bytes | int]:
    names = {
        b"out": b"o",
        b"err": b"e",
        b"input": b"i",
        b"note": b"n",
        b"log": b"l",
        b"piece": b"x",
        b"copy": b"c",
    }
    return {key: quoted(b"%s/%s.%s" % (folder, name, token)) for key, name in names.items()}
