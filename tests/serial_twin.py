"""A serial line with no machine: a pty for the guest, a pty for the host, and a relay between them.

As a UART does, the relay tells neither side of the other's hang-up; and it can damage what passes.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import tty
from collections.abc import Callable
from pathlib import Path

from hostctl_channels.console import open_console
from hostctl_channels.login import Login
from hostctl_channels.serial_agent import open_serial
from hostctl_channels.staged import StagedChannel

from .twin import SHELLS, _Twin, twin_path

__all__ = ["PASSWORD", "USER", "AgentOnTty", "Filter", "GettyOnTty", "Relay"]

USER, PASSWORD = "somebody", "a 'pass' $word"

# What getty and login do, without their need of root and of accounts.
GETTY = r"""
exec <>"$1" >&0 2>&0
while :; do
	stty sane
	printf '\r\n%s\r\n\r\ntwin login: ' "$2"
	IFS= read -r user || exit
	[ -n "$user" ] || continue
	stty -echo
	printf 'Password: '
	IFS= read -r password
	stty echo
	printf '\n'
	if [ "$user:$password" = "$WANTED" ]; then
		printf 'Last login: never\nWelcome. Access is logged.\n'
		(unset WANTED; exec $TWIN_SHELL -i)
	else
		sleep 0.2
		printf 'Login incorrect\n'
	fi
done
"""

Filter = Callable[[bytes], bytes]
"""What becomes of bytes that pass."""


def _same(data: bytes) -> bytes:
    return data


class Relay:
    """Both ptys and the thread between them; `guest` and `host` are the paths of their ends."""

    def __init__(self, *, raw_guest: bool = True) -> None:
        self._masters: list[int] = []
        self._slaves: list[int] = []  # kept open: a pty without one is an error to its master
        for raw in (raw_guest, True):
            master, slave = os.openpty()
            if raw:
                tty.setraw(slave)
            self._masters.append(master)
            self._slaves.append(slave)
        self.guest, self.host = (os.ttyname(slave) for slave in self._slaves)
        self.to_guest: Filter = _same
        self.to_host: Filter = _same
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def guest_fd(self) -> int:
        """The guest's end, open."""
        return self._slaves[0]

    def say(self, data: bytes) -> None:
        """Say something to the host that the guest's agent did not."""
        os.write(self._masters[1], data)

    def close(self) -> None:
        """Cut the line."""
        os.write(self._stop_w, b"x")
        self._thread.join()
        for fd in (*self._slaves, *self._masters, self._stop_r, self._stop_w):
            os.close(fd)

    def _run(self) -> None:
        guest, host = self._masters
        while True:
            ready, _, _ = select.select([guest, host, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            if guest in ready:
                self._write(host, self.to_host(os.read(guest, 4096)))
            if host in ready:
                self._write(guest, self.to_guest(os.read(host, 4096)))

    def _write(self, fd: int, data: bytes) -> None:
        while data:
            _, writable, _ = select.select([self._stop_r], [fd], [], 30)
            if not writable:
                return
            data = data[os.write(fd, data[:256]) :]


class AgentOnTty(_Twin):
    """The real agent, serving one tty, as on ttyS1."""

    def __init__(
        self, shell: str, folder: Path, *, raw: bool = False, lacks: str | None = None
    ) -> None:
        super().__init__(shell, folder)
        environ = {}
        if lacks:  # busybox's tools without one, as other files: its own shell would find it
            environ["PATH"] = twin_path("ash", folder)
            (Path(environ["PATH"]) / lacks).unlink()
        self.relay = Relay(raw_guest=raw)
        self.locks = folder / "locks"
        self.locks.mkdir()
        self._launch(self.relay.guest, line=subprocess.DEVNULL, environ=environ)
        self.channel = self.new_channel()

    def new_channel(self) -> StagedChannel:
        """Return a channel as another process would have it."""
        return open_serial(self.relay.host, lock_dir=self.locks, pulse=self.pulse)

    async def close(self) -> None:
        """Cut the line, and see that everything ends."""
        await self.channel.close()
        self.agents[0].kill()
        self.relay.close()
        self.leftovers_are_fine = True  # its worker hears of nothing, as on a UART
        self._finish()


class GettyOnTty(_Twin):
    """A shell behind a login prompt on a tty that is cooked, echoes, and is its own terminal."""

    def __init__(self, shell: str, folder: Path) -> None:
        super().__init__(shell, folder)
        self.relay = Relay(raw_guest=False)
        self.locks = folder / "locks"
        self.locks.mkdir()
        self._script.write_text(GETTY)
        environ = {
            "WANTED": f"{USER}:{PASSWORD}",
            "TWIN_SHELL": " ".join(SHELLS[shell]) if shell != "ash" else "busybox ash",
            "PS1": "\\u@\\h:\\w\\$ ",
            "HOME": str(folder),
            "TERM": "vt100",
        }
        self._launch(self.relay.guest, "Twin GNU/Linux", line=subprocess.DEVNULL, environ=environ)
        self.channel = self.new_channel(Login(USER, PASSWORD))

    def new_channel(self, login: Login | None) -> StagedChannel:
        """Return a channel that logs in so."""
        return open_console(self.relay.host, login, lock_dir=self.locks, pulse=self.pulse)

    async def close(self) -> None:
        """Cut the line, and end all."""
        await self.channel.close()
        self.leftovers_are_fine = True  # a getty has no reason to end
        self._finish()
        self.relay.close()
