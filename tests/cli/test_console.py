"""The console: its log, and a conversation over a socket in the place of QEMU's."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostctl.cli.exits import Exit
from hostctl.cli.main import main

from .descriptors import stdin_from
from .fakes import FakeMachine


def test_the_log_is_printed_as_it_is(
    web: FakeMachine, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    web.console_log = tmp_path / "console.log"
    assert main(["console", "--log", "web"]) == Exit.OK
    web.console_log.write_bytes(b"boot\r\n\xff")
    assert main(["console", "--log", "web"]) == Exit.OK
    assert capfdbinary.readouterr().out == b"boot\r\n\xff"


@pytest.fixture
def line(web: FakeMachine, tmp_path: Path) -> Iterator[socket.socket]:
    """What QEMU listens on."""
    web.console_socket = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(web.console_socket))
        server.listen()
        yield server


def test_no_machine_no_console(
    web: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.console_socket = tmp_path / "gone" / "console.sock"
    assert main(["console", "web"]) == Exit.FAILED
    assert "cannot attach to the console of web" in capsys.readouterr().err


@pytest.mark.usefixtures("web")
def test_keys_go_in_and_text_comes_out_until_the_user_leaves(
    line: socket.socket, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    reader, writer = os.pipe()
    heard = bytearray()

    def guest() -> None:
        peer, _ = line.accept()
        with peer:
            peer.sendall(b"login: ")
            os.write(writer, b"root\r")
            heard.extend(peer.recv(100))
            os.write(writer, b"\x1d")
            peer.recv(100)

    thread = threading.Thread(target=guest)
    thread.start()
    with stdin_from(reader):
        assert main(["console", "web"]) == Exit.OK
    thread.join(10)
    os.close(reader)
    os.close(writer)
    assert bytes(heard) == b"root\r"
    assert capfdbinary.readouterr().out == b"login: "


@pytest.mark.usefixtures("web")
def test_a_console_has_one_client(
    line: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    with (tmp_path / "console.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["console", "web"]) == Exit.TIMED_OUT
    assert "the console of web is busy" in capsys.readouterr().err
    assert line.fileno() >= 0


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], b"".join(b"line %d\r\n" % n for n in range(77, 100)) + b"last"),
        (["--history", "0"], b""),
    ],
)
def test_it_begins_with_what_was_said_before(
    web: FakeMachine,
    line: socket.socket,
    tmp_path: Path,
    words: list[str],
    shown: bytes,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    web.console_log = tmp_path / "console.log"
    web.console_log.write_bytes(b"".join(b"line %d\r\n" % n for n in range(100)) + b"last")
    with open(os.devnull) as nothing, stdin_from(nothing.fileno()):
        assert main(["console", "web", *words]) == Exit.OK
    assert capfdbinary.readouterr().out == shown
    assert line.fileno() >= 0
