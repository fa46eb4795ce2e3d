"""What `shell` and `exec -t` ask for, and how they go on where a guest has no terminal to give."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import SupportsIndex, cast

import pytest

from hostctl.cli.exits import Exit
from hostctl.cli.main import main
from hostctl.errors import Refused
from hostctl_channels.interface import ExitStatus

from .descriptors import stdin_from, stdin_of
from .fakes import FakeMachine


class FakeTerminal:
    """Shows what was prepared, and remembers what was typed; ends after its input has."""

    def __init__(self, text: list[bytes], tool: str = "none") -> None:
        self.text = text
        self.tool = tool
        self.is_real = tool != "none"
        self.typed = b""
        self.signals: list[str] = []
        self.end = ExitStatus(5)

    async def read(self) -> bytes | None:
        while not self.text and not self.typed.endswith(b"\x04"):  # noqa: ASYNC110 a fake
            await asyncio.sleep(0.001)
        return self.text.pop(0) if self.text else None

    async def write(self, keys: bytes) -> None:
        self.typed += keys

    async def close_stdin(self) -> None:
        self.typed += b"\x04"

    async def signal(self, name: str) -> None:
        self.signals.append(name)
        self.typed += b"\x04"

    async def wait(self) -> ExitStatus:
        return self.end


@pytest.fixture
def terminal(web: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """The one that the machine `web` gives."""
    made = FakeTerminal([b"prompt> "])

    @asynccontextmanager
    async def give(*argv: bytes, **how: object) -> AsyncIterator[FakeTerminal]:
        web._note("terminal", (argv, how))
        yield made

    monkeypatch.setattr(web, "terminal", give, raising=False)
    return made


def asked(web: FakeMachine) -> tuple[tuple[bytes, ...], dict[str, object]]:
    ((name, found),) = web.calls
    assert name == "terminal"
    return cast(tuple[tuple[bytes, ...], dict[str, object]], found)


def test_without_a_terminal_it_goes_on_line_by_line(
    web: FakeMachine, terminal: FakeTerminal, capfd: pytest.CaptureFixture[str]
) -> None:
    with stdin_of(b"~.\n"):  # no escape: nobody sits there
        assert main(["shell", "web"]) == 5
    assert terminal.typed == b"~.\n\x04"
    shown = capfd.readouterr()
    assert shown.out == "prompt> "
    assert "web has no tool that makes a terminal (script, " in shown.err
    argv, how = asked(web)
    assert (argv, how["plain"]) == ((), True)


def test_an_interrupt_is_passed_on_where_it_is_no_key(
    web: FakeMachine, terminal: FakeTerminal
) -> None:
    class Interrupting(list[bytes]):
        def pop(self, at: SupportsIndex = 0) -> bytes:
            os.kill(os.getpid(), signal.SIGINT)
            return super().pop(at)

    terminal.text = Interrupting([b"x"])
    reader, writer = os.pipe()
    with stdin_from(reader):
        assert main(["shell", "web"]) == 5
    os.close(reader)
    os.close(writer)
    assert terminal.signals == ["INT"]


def test_words_and_surroundings_pass(
    web: FakeMachine, terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "foo")
    monkeypatch.delenv("COLORTERM", raising=False)
    terminal.tool, terminal.is_real = "script", True
    line = ["exec", "-t", "-u", "user", "web", "-w", "/tmp", "-e", "A=b", "--", "top", "-d", "1"]
    with stdin_of(b""):
        assert main(line) == 5
    argv, how = asked(web)
    assert argv == (b"top", b"-d", b"1")
    assert how["env"] == {b"TERM": b"foo", b"A": b"b"}
    assert (how["user"], how["cwd"], how["plain"]) == ("user", "/tmp", False)


@pytest.mark.usefixtures("terminal")
def test_refusals_have_the_codes_of_exec(
    web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    web.error = Refused("the guest has no tool that makes a terminal", "terminal")
    assert main(["exec", "-t", "web", "true"]) == Exit.REFUSED
    assert main(["shell", "web", "--", "true"]) == Exit.REFUSED
    assert main(["shell", "nonesuch"]) == Exit.OURS
    assert main(["shell"]) == Exit.OURS
    assert main(["exec", "-td", "web", "true"]) == Exit.OURS
    assert "--tty does not go with --detach" in capsys.readouterr().err
