"""Who logs in on a console, and the way from any state of a line to a shell that obeys us.

A password comes from a file that only its owner can read, or from a prompt; it is sent to nothing
but a prompt for a password, and appears in no log, no repr and no argument list.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .errors import ChannelTimeout, LocalProtocolError, LoginFailed
from .talk import Talk, clean

__all__ = ["Login", "reach_shell"]

_LOOK_S: Final = 1.5  # silence after which something is tried
_ANSWER_S: Final = 4.0  # for a shell to answer; an emulated guest under load stalls for seconds
_PATIENCE_S: Final = 10.0  # after a name or a password, before anything else is said
_CALM_S: Final = 0.3  # a prompt is one if nothing follows it for so long

_LOGIN: Final = re.compile(rb"(?:login|user ?name|login name): ?\Z", re.IGNORECASE)
_PASSWORD: Final = re.compile(rb"(?:password|passphrase)[^\r\n]{0,80}: ?\Z", re.IGNORECASE)
_PROMPT: Final = re.compile(rb"[#$%>] ?\Z")
_FAILED: Final = re.compile(rb"login incorrect|authentication failure", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the guest."""

    user: str
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for text in (self.user, self.password or ""):
            if any(ord(c) < 32 or ord(c) == 127 for c in text):
                raise LocalProtocolError("a login holds a control character")
        if not self.user:
            raise LocalProtocolError("a login needs a user")

    @classmethod
    def read(cls, path: Path) -> Login:
        """Read `user = "…"` and `password = "…"` from a TOML file that only its owner can read.

        Raises:
            LocalProtocolError: it can be read by others, belongs to somebody else, or says more.
        """
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
                raise LocalProtocolError(
                    f"{path} holds a password, and others may read it", hint=f"chmod 600 {path}"
                )
            try:
                values = tomllib.load(file)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError):
                values = {}  # the error would quote the line, which may be the password
        if not set(values) <= {"user", "password"} or "user" not in values:
            raise LocalProtocolError(f'{path}: expected user = "…" and password = "…"')
        if not all(isinstance(value, str) for value in values.values()):
            raise LocalProtocolError(f"{path}: user and password must be strings")
        return cls(values["user"], values.get("password"))

    @classmethod
    def ask(cls, user: str, *, prompt: Callable[[str], str] | None = None) -> Login:
        """Ask for the password at the terminal, without echo."""
        if prompt is None:
            from getpass import getpass

            prompt = getpass
        return cls(user, prompt(f"password of {user} in the guest: "))


async def reach_shell(talk: Talk, login: Login | None, timeout_s: float) -> None:
    """Bring the line to a shell that runs lines of ours and neither echoes nor prompts.

    One attempt with the password: what refuses it once would refuse it again, and may lock out.

    Raises:
        LoginFailed: the guest refused, or wants what `login` does not have.
        ChannelTimeout: neither a prompt nor a shell was found in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _Climb(talk, login).to_shell()
    except TimeoutError as err:
        raise ChannelTimeout(
            f"no login prompt and no shell within {timeout_s:g} s"
            f"; the line said last: {talk.last_words()}"
        ) from err


class _Climb:
    """What has been tried so far."""

    def __init__(self, talk: Talk, login: Login | None) -> None:
        self._talk = talk
        self._login = login
        self._has_named = self._has_sent = False
        self._silences = 0
        self._heard = b""  # since we spoke last
        self._patient_until = 0.0

    async def to_shell(self) -> None:
        await self._speak(b"\n")
        while True:  # the caller has a deadline
            await self._listen()
            if self._has_sent and _FAILED.search(self._heard):
                raise LoginFailed(f"the guest refused the login of {self._user}")
            if _PASSWORD.search(self._heard):
                await self._password()
            elif _LOGIN.search(self._heard):
                await self._name()
            elif await self._is_shell():
                return

    @property
    def _user(self) -> str:
        return self._login.user if self._login else "?"

    async def _speak(self, data: bytes, *, patience_s: float = 0, is_secret: bool = False) -> None:
        self._heard = b""
        self._patient_until = time.monotonic() + patience_s
        await self._talk.send(data, is_secret=is_secret)

    async def _listen(self) -> None:
        """Hear until the last word stays that for a moment."""
        end = time.monotonic() + _LOOK_S
        while (left_s := end - time.monotonic()) > 0:
            more = await self._talk.pending(min(left_s, _CALM_S))
            if not more and self._heard:
                break
            self._heard = clean((self._heard + more)[-4096:])

    async def _name(self) -> None:
        if self._has_sent:
            raise LoginFailed(f"the guest refused the login of {self._user}")
        if self._login is None:
            raise LoginFailed("the guest wants a login, and none was given")
        self._has_named = True
        await self._speak(self._login.user.encode() + b"\n", patience_s=_PATIENCE_S)

    async def _password(self) -> None:
        if not self._has_named:  # of somebody else's attempt, or our probe taken for a name
            await self._speak(b"\n", patience_s=_PATIENCE_S)
            return
        if self._login is None or self._login.password is None:
            raise LoginFailed(f"the guest wants a password of {self._user}, and none was given")
        if self._has_sent:
            raise LoginFailed(f"the guest refused the login of {self._user}")
        self._has_sent = True
        secret = self._login.password.encode() + b"\n"
        await self._speak(secret, patience_s=_PATIENCE_S, is_secret=True)

    async def _is_shell(self) -> bool:
        """See whether it is time to try a shell, and try it."""
        if not _PROMPT.search(self._heard):
            # The echo of a name may come letter by letter: what we say now would join it.
            if time.monotonic() < self._patient_until:
                return False
            if not self._heard:
                return await self._break_silence()
        return await self._try_shell()

    async def _break_silence(self) -> bool:
        """Ask for a prompt; then perhaps a program is in the foreground, or nothing prompts."""
        self._silences += 1
        await self._speak(b"\x03" if self._silences % 4 == 3 else b"\n")
        return self._silences % 2 == 0 and await self._try_shell()

    async def _try_shell(self) -> bool:
        """Ask for a word no echo would give; then start a loop of ours in the shell's place."""
        self._heard = b""
        if not await self._talk.answers(b"echo %s\n", _ANSWER_S):
            return False
        await self._talk.send(_LOOP)
        for _ in range(3):
            if await self._talk.answers(b"echo %s\n", _ANSWER_S):
                return True
        return False


# In whatever shell a user has: no line editing, no prompt, no history, no echo, and deaf to Ctrl-C,
# which reaches the command it runs, and does not flush what we sent. An interrupted `read` fails as
# one at the end does: a few may. No `exec`: an interactive dash would hand on that it ignores QUIT
# and TERM.
_LOOP: Final = (
    b"/bin/sh -c '"
    b"stty -echo -opost noflsh 2>/dev/null;trap : INT QUIT;PS1=;PS2=;f=0;"
    b"while [ $f -lt 20 ];do "
    b'if IFS= read -r l;then f=0;eval "$l";else f=$((f+1));fi;'
    b"done';exit\n"
)
