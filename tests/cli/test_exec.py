"""What `exec` makes of words, streams, signals and ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from hostctl.cli import exec as exec_command
from hostctl.cli.exits import Exit, UsageError
from hostctl.cli.main import main
from hostctl.errors import ChannelReset, Refused
from hostctl_channels.interface import ExitStatus

from .descriptors import stdin_from, stdin_of
from .fakes import FakeMachine, FakeProcess, ReadingProcess


class SignalledProcess(FakeProcess):
    """Sends us a signal whenever it is read, and ends after it received `last`."""

    def __init__(self, numbers: list[int], last: str) -> None:
        super().__init__((), ExitStatus(None, 9))
        self._numbers = numbers
        self._last = last

    async def read(self) -> tuple[int, bytes] | None:
        if self._last in self.signals:
            return None
        if self._numbers:
            os.kill(os.getpid(), self._numbers.pop(0))
        await asyncio.sleep(0.001)  # lets the loop see the signal
        return 1, b"."


class StubbornProcess(SignalledProcess):
    """Does not end, whatever it receives."""

    async def read(self) -> tuple[int, bytes] | None:
        self.signals.clear()
        return await super().read()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ExitStatus(0), 0),
        (ExitStatus(3), 3),
        (ExitStatus(127), 127),
        (ExitStatus(None, 15), 143),
        (ExitStatus(None, 9, timed_out=True), Exit.COMMAND_TIMED_OUT),
    ],
)
def test_the_exit_status_passes_through(web: FakeMachine, status: ExitStatus, code: int) -> None:
    web.next_process = FakeProcess((), status)
    assert main(["exec", "web", "--", "cmd"]) == code


def test_a_timeout_is_said(web: FakeMachine, capfd: pytest.CaptureFixture[str]) -> None:
    web.next_process = FakeProcess((), ExitStatus(None, 9, timed_out=True))
    main(["exec", "--timeout", "1.5s", "web", "cmd"])
    assert capfd.readouterr().err == (
        "hostctl: exec on web: timed out after 1.5 s, the command was killed\n"
    )


def test_streams_arrive_as_bytes_apart(
    web: FakeMachine, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    big = bytes(range(256)) * 1000
    web.next_process = FakeProcess([(1, b"out\0\xff"), (2, b"err"), (1, big)], ExitStatus(0))
    assert main(["exec", "web", "cmd"]) == 0
    assert capfdbinary.readouterr() == (b"out\0\xff" + big, b"err")


def test_all_that_was_asked_for_reaches_the_machine(
    web: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "value")
    line = ["exec", "web", "-e", "A=b=c", "-e", "HERE", "-w", "/tmp", "-u", "nobody"]
    main([*line, "--timeout", "2", "--", "cmd", "-i", os.fsdecode(b"\xff")])
    assert web.calls == [
        (
            "process",
            (
                (b"cmd", b"-i", b"\xff"),
                {
                    "stdin": False,
                    "env": {b"A": b"b=c", b"HERE": b"value"},
                    "cwd": "/tmp",
                    "user": "nobody",
                    "timeout_s": 2.0,
                },
            ),
        )
    ]


def test_a_shell_line_is_one_word_for_sh() -> None:
    argv = exec_command.guest_argv(["ls", "/tmp", "|", "wc"], shell=True)
    assert argv == (b"/bin/sh", b"-c", b"ls /tmp | wc")


@pytest.mark.parametrize("text", ["=x", "SURELY_NOT_SET_HERE"])
def test_an_environment_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--env"):
        exec_command.parse_env(text)


def test_stdin_is_passed_on_only_when_asked(web: FakeMachine, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_bytes(b"hello\0" * 100_000)
    with source.open("rb") as file, stdin_from(file.fileno()):
        web.next_process = ReadingProcess()
        main(["exec", "-i", "web", "cat"])
    assert web.next_process.received == source.read_bytes()
    assert web.next_process.stdin_closed
    web.next_process = FakeProcess((), ExitStatus(0))
    main(["exec", "web", "cat"])
    assert not web.next_process.stdin_closed


def test_stdin_may_be_a_pipe(web: FakeMachine) -> None:
    web.next_process = ReadingProcess()
    with stdin_of(b"through a pipe"):
        main(["exec", "-i", "web", "cat"])
    assert web.next_process.received == b"through a pipe"


@pytest.mark.parametrize(
    ("numbers", "passed"),
    [
        ([signal.SIGINT], ["INT"]),
        ([signal.SIGTERM], ["TERM"]),
        ([signal.SIGHUP], ["HUP"]),
        ([signal.SIGINT, signal.SIGINT], ["INT", "KILL"]),
    ],
)
def test_signals_reach_the_command(web: FakeMachine, numbers: list[int], passed: list[str]) -> None:
    web.next_process = SignalledProcess(list(numbers), passed[-1])
    assert main(["exec", "web", "cmd"]) == 137
    assert web.next_process.signals == passed


def test_the_third_ctrl_c_does_not_wait(web: FakeMachine) -> None:
    web.next_process = StubbornProcess([signal.SIGINT] * 3, "never")
    assert main(["exec", "web", "cmd"]) == Exit.INTERRUPTED


def test_the_handlers_are_given_back(web: FakeMachine) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    main(["exec", "web", "cmd"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("error", "code"), [(ChannelReset("cut"), Exit.OURS), (Refused("no su", "user"), Exit.REFUSED)]
)
def test_our_own_failures_stay_out_of_the_commands_codes(
    web: FakeMachine, error: Exception, code: Exit, capfd: pytest.CaptureFixture[str]
) -> None:
    web.error = error
    assert main(["exec", "web", "cmd"]) == code
    assert capfd.readouterr().err == f"hostctl: {error}\n"


def test_a_closed_stdout_ends_quietly(
    web: FakeMachine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    web.next_process = FakeProcess([(writer, b"x"), (writer, b"y" * 10_000)], ExitStatus(0))
    with open(os.devnull, "w") as stdout:  # which is pointed elsewhere: let it not be pytest's
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["exec", "web", "yes"]) == Exit.BROKEN_PIPE
    os.close(writer)
    assert capfd.readouterr().err == ""


def test_a_channel_may_be_forced(web: FakeMachine) -> None:
    assert main(["exec", "--channel", "qga", "web", "--", "true"]) == 0
    assert web.calls[0] == ("use channel", "qga")
    web.calls.clear()
    assert main(["exec", "--channel", "auto", "web", "--", "true"]) == 0
    assert ("use channel", "auto") not in web.calls
