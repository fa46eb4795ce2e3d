"""The command line under a real terminal, and a guest's behind it: shell, exec -t, console."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from hostctl.machine import Machine
from hostctl.state import Home
from tests.homes import environment

from .conftest import NAME

pytestmark = pytest.mark.vm

RUN = "import sys; sys.argv[0] = 'hostctl'; from hostctl.cli.main import main; sys.exit(main())"
ENOUGH_S = 60
PROMPT = b"# "


class Window:
    """A terminal of ours with `hostctl` in it."""

    def __init__(self, home: Home, *words: str) -> None:
        environ = environment(home) | {"TERM": "xterm"}
        self._text = b""
        # Ours stays open: what its settings are can be asked when everybody else has left.
        self._master, self._slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self._slave)
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(self._slave, fd)
            os.execve(sys.executable, [sys.executable, "-c", RUN, *words], environ)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def until(self, text: bytes) -> bytes:
        """Return what is shown up to this text; nothing of it is seen twice."""
        end = time.monotonic() + ENOUGH_S
        while text not in self._text:
            left_s = max(0.0, end - time.monotonic())
            assert select.select([self._master], (), (), left_s)[0], (text, self._text)
            self._text += os.read(self._master, 65536)
        before, _, self._text = self._text.partition(text)
        return before

    def close(self) -> int:
        """Wait for its end, see that our terminal is as it was, return the exit status."""
        end = time.monotonic() + ENOUGH_S
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < end, self._text
            if select.select([self._master], (), (), 0.05)[0]:
                self._text += os.read(self._master, 65536)
        assert termios.tcgetattr(self._slave) == self.before
        os.close(self._master)
        os.close(self._slave)
        return os.waitstatus_to_exitcode(ended[1])

    def kill(self) -> None:
        with suppress(ProcessLookupError, ChildProcessError, OSError):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
async def shell(machine: Machine, home: Home) -> AsyncIterator[Window]:
    """Return a window with a shell that has begun."""
    window = Window(home, "shell", NAME)
    window.until(PROMPT)
    yield window
    window.kill()


async def test_a_shell_as_at_home(shell: Window) -> None:
    assert shell.is_raw
    shell.type(b"stty size; echo =$HOME=$TERM=; printf '\\033[31mred\\n'\r")
    shell.until(b"\n30 100\r\n=/root=xterm=\r\n\x1b[31mred\r\n")
    shell.resize(11, 44)
    shell.type(b"until stty size | grep '^11 44$'; do sleep 0.1; done\r")
    shell.until(b"\n11 44\r\n")
    shell.until(PROMPT)
    shell.type(b"sh -c 'printf %s%s be gun; exec sleep 600'\r")
    shell.until(b"begun")
    shell.type(b"\x03")
    shell.until(PROMPT)
    shell.type(b"echo $?; exit 5\r")
    shell.until(b"130\r\n")
    assert shell.close() == 5


async def test_the_escape_leaves_and_ends_what_runs(shell: Window, machine: Machine) -> None:
    shell.type(b"printf '\\033[?1049h'; sleep 654\r")
    shell.until(b"\x1b[?1049h")
    shell.type(b"\r~.")
    shell.until(b"\x1b[?1049l\x1b[0m")
    assert shell.close() == 129
    assert (await machine.shell("ps | grep '[s]leep 654'; ls /tmp")).stdout == b""


async def test_the_terminal_is_put_back_when_we_are_ended(shell: Window) -> None:
    os.kill(shell.pid, signal.SIGTERM)
    assert shell.close() == 143


async def test_a_reset_ends_it_and_says_so(shell: Window, machine: Machine) -> None:
    await machine.reset(wait=False)
    shell.until(b"hostctl: ")
    assert shell.close() == 125


async def test_a_command_at_a_terminal(machine: Machine, home: Home) -> None:
    line = "test -t 0 && test -t 1 && stty size && read word && exit 7"
    window = Window(home, "exec", "-t", NAME, "--", "sh", "-c", line)
    try:
        window.until(b"30 100\r\n")
        window.type(b"word\r")
        window.until(b"word\r\n")
        assert window.close() == 7
    finally:
        window.kill()


async def test_the_console_has_a_history(machine: Machine, home: Home) -> None:
    await machine.shell("echo said before >/dev/console")
    window = Window(home, "console", NAME)
    try:
        window.until(b"said before\r\n")
        window.until(b"Ctrl-] leaves")
        await machine.shell("echo said now >/dev/console")
        window.until(b"said now\r\n")
        assert window.is_raw
        window.type(b"\x1d")
        assert window.close() == 0
    finally:
        window.kill()
