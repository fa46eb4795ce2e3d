"""The real command line, as its own process, on a real machine that boots once for this file."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.trees import everything, looks

pytestmark = [pytest.mark.vm, pytest.mark.timeout(90)]

RUN = "import sys; sys.argv[0] = 'hostctl'; from hostctl.cli.main import main; sys.exit(main())"
NAME = f"cli-{os.getpid()}"
PATIENCE_S = 120


class Cli:
    """`hostctl` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.environ: Mapping[str, str] = os.environ | {
            "HOSTCTL_STATE_DIR": str(home / "state"),
            "HOSTCTL_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def __call__(
        self, *words: str | bytes, input: bytes | None = None, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a line to its end."""
        return subprocess.run(
            self._argv(words),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=self.environ,
            timeout=timeout_s,
            check=False,
        )

    def good(self, *words: str | bytes, input: bytes | None = None) -> bytes:
        """Run a line that must succeed in silence, and return its output."""
        done = self(*words, input=input)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def begin(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a line whose streams are ours."""
        return subprocess.Popen(
            self._argv(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
        )

    def _argv(self, words: tuple[str | bytes, ...]) -> list[str | bytes]:
        return [sys.executable, "-c", RUN, *words]


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    """A command line whose machine runs; its whole life is checked on the way."""
    # Not pytest's tmp_path: socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="hostctl-cli-", dir="/tmp") as home:
        cli = Cli(Path(home))
        try:
            cli.good("create", NAME)
            assert one_state(cli) == "stopped"
            cli.good("start", NAME)
            assert one_state(cli) == "running"
            yield cli
            cli.good("stop", NAME)
            assert one_state(cli) == "stopped"
        finally:
            cli("delete", "--force", NAME)
        assert json.loads(cli.good("list", "--json")) == []


def one_state(cli: Cli) -> str:
    (row,) = json.loads(cli.good("list", "--json"))
    assert row["name"] == NAME
    return str(row["state"])


# exec


def test_streams_and_status_pass_through(cli: Cli) -> None:
    done = cli("exec", NAME, "--shell", "--", "printf 'a\\0b'; printf err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"a\0b", b"err")


def test_a_death_by_signal_is_128_and_its_number(cli: Cli) -> None:
    assert cli("exec", NAME, "--", "sh", "-c", "kill -SEGV $$").returncode == 139


def test_a_command_that_is_not_there_is_127(cli: Cli) -> None:
    done = cli("exec", NAME, "no-such-command")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


def test_a_command_out_of_time_is_124(cli: Cli) -> None:
    began = time.monotonic()
    done = cli("exec", "--timeout", "1s", NAME, "sleep", "60")
    assert done.returncode == 124
    assert done.stderr.endswith(b"timed out after 1.0 s, the command was killed\n")
    assert time.monotonic() - began < 30


def test_words_environment_and_folder_arrive_untouched(cli: Cli) -> None:
    words = ["", "a b", "$HOME", "'\"\\", "line\nbreak", "-n", "*"]
    shown = cli.good("exec", NAME, "--", "printf", "%s\\n", *words, b"\xff")
    assert shown == b"".join(os.fsencode(word) + b"\n" for word in words) + b"\xff\n"
    line = 'echo "$A|$PWD"'
    assert cli.good("exec", NAME, "-e", "A=x y=z", "-w", "/tmp", "--shell", line) == b"x y=z|/tmp\n"


def test_stdin_passes_with_i_and_is_empty_without(cli: Cli) -> None:
    data = os.urandom(2**20)
    assert cli.good("exec", "-i", NAME, "cat", input=data) == data
    assert cli.good("exec", NAME, "cat", input=b"ignored") == b""


def test_large_output_is_complete(cli: Cli) -> None:
    shown = cli.good("exec", NAME, "dd", "if=/dev/zero", "bs=1M", "count=16", "status=none")
    assert len(shown) == 16 * 2**20
    assert not any(shown[:: 2**16])


def test_output_is_seen_while_the_command_runs(cli: Cli) -> None:
    with cli.begin("exec", "-i", NAME, "--shell", "echo first; read line; echo $line") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"first\n"
        running.stdin.write(b"second\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"second\n"
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("number", "trap"), [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP")]
)
def test_our_signals_reach_the_command(cli: Cli, number: int, trap: str) -> None:
    script = f"trap 'echo caught; exit 7' {trap}; echo set; while :; do sleep 0.1; done"
    with cli.begin("exec", NAME, "--shell", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"set\n"
        running.send_signal(number)
        assert running.stdout.readline() == b"caught\n"
    assert running.returncode == 7


def test_the_second_ctrl_c_kills(cli: Cli) -> None:
    script = "trap '' INT; echo set; while :; do sleep 0.1; done"
    with cli.begin("exec", NAME, "--shell", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"set\n"
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)  # two of a kind that come at once are one
        running.send_signal(signal.SIGINT)
    assert running.returncode == 137


def test_a_reader_that_leaves_ends_the_command_quietly(cli: Cli) -> None:
    with cli.begin("exec", NAME, "yes", "tag-of-this-test") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141
    assert b"tag-of-this-test" not in cli.good("exec", NAME, "--shell", "ps | grep -v grep")


def test_a_killed_hostctl_leaves_no_command_behind(cli: Cli) -> None:
    with cli.begin("exec", NAME, "--shell", "echo on; sleep 776") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        running.kill()
    deadline = time.monotonic() + 20
    while b"sleep 776" in cli.good("exec", NAME, "--shell", "ps | grep -v grep"):
        assert time.monotonic() < deadline
    assert cli.good("exec", NAME, "echo", "still here") == b"still here\n"


def test_four_at_once_do_not_meet(cli: Cli) -> None:
    running = [cli.begin("exec", NAME, "--shell", f"sleep 0.2; echo {n}") for n in range(4)]
    said = [one.communicate(timeout=PATIENCE_S)[0] for one in running]
    assert said == [b"0\n", b"1\n", b"2\n", b"3\n"]


# cp


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001], ids=lambda size: f"{size} bytes")
def test_a_file_goes_in_and_comes_out(cli: Cli, tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(size))
    told = json.loads(cli.good("cp", "--json", "--verify", "sha256", str(source), f"{NAME}:/tmp/f"))
    assert told["size_bytes"] == size
    assert told["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    cli.good("cp", "--verify", "sha256", f"{NAME}:/tmp/f", str(back))
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "name", [b"with space", b"new\nline", b"-dash", b"'quote\"$x", b"\xff\xfe", b"a:b", b"*"]
)
def test_any_name_survives(cli: Cli, tmp_path: Path, name: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(name)
    cli.good("exec", NAME, "mkdir", "-p", "/tmp/names")
    cli.good("cp", str(source), f"{NAME}:/tmp/names/".encode() + name)
    cli.good("cp", f"{NAME}:/tmp/names/".encode() + name, str(tmp_path))
    assert Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).read_bytes() == name
    assert cli.good("exec", NAME, "rm", b"/tmp/names/" + name) == b""


def test_a_folder_gets_the_sources_name(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "job.txt"
    source.write_bytes(b"job")
    cli.good("cp", str(source), f"{NAME}:/tmp")
    assert cli.good("exec", NAME, "cat", "/tmp/job.txt") == b"job"


def test_permissions_and_time(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "kept"
    source.write_bytes(b"x")
    source.chmod(0o750)
    os.utime(source, (1e9, 1e9))
    cli.good("cp", "-p", str(source), f"{NAME}:/tmp/kept")
    assert cli.good("exec", NAME, "stat", "-c", "%a %Y", "/tmp/kept") == b"750 1000000000\n"
    cli.good("cp", "-p", f"{NAME}:/tmp/kept", str(tmp_path / "back"))
    found = (tmp_path / "back").stat()
    assert (found.st_mode & 0o777, found.st_mtime) == (0o750, 1e9)
    cli.good("cp", "--mode", "0604", str(source), f"{NAME}:/tmp/kept")
    assert cli.good("exec", NAME, "stat", "-c", "%a", "/tmp/kept") == b"604\n"


def test_standard_streams_are_files_too(cli: Cli) -> None:
    data = os.urandom(300_000)
    cli.good("cp", "-", f"{NAME}:/tmp/piped", input=data)
    assert cli.good("cp", f"{NAME}:/tmp/piped", "-") == data


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("cp {name}:/no/such/file {tmp}/x", 3, "/no/such/file"),
        ("cp /etc/hostname {name}:/no/folder/x", 3, "/no/folder/x"),
        ("cp {name}:/etc {tmp}/x", 2, "is a folder"),
        ("cp {tmp} {name}:/tmp/x", 2, "is a folder"),
        ("exec nobody true", 125, "no machine named 'nobody'"),
        ("show nobody", 3, "no machine named 'nobody'"),
        ("create {name}", 4, "exists already"),
        ("delete {name}", 4, "it is running"),
        ("snapshot restore {name} never", 3, "has no snapshot 'never'"),
        ("wait {name} --for stopped --timeout 200ms", 5, "is running, not stopped"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    cli: Cli, tmp_path: Path, line: str, code: int, said: str
) -> None:
    done = cli(*line.format(name=NAME, tmp=tmp_path).split())
    assert (done.returncode, done.stdout) == (code, b"")
    text = done.stderr.decode()
    assert text.startswith("hostctl: ")
    assert said in text
    assert text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# The machine


def test_show_proves_that_there_is_no_network(cli: Cli) -> None:
    proof = {"isolated": True, "nics": [], "guest_interfaces": ["lo"]}
    for _ in range(3):  # on a busy host the guest may be late, and show does not wait for long
        network = json.loads(cli.good("show", NAME, "--json"))["network"]
        if network["isolated"] is not None:
            assert network == proof
            return
    pytest.fail("the guest was not heard")


def test_a_paused_machine_says_how_to_wake_it(cli: Cli) -> None:
    cli.good("pause", NAME)
    assert one_state(cli) == "paused"
    done = cli("exec", NAME, "true")
    assert done.returncode == 125
    assert f'it is paused; try "hostctl resume {NAME}"' in done.stderr.decode()
    cli.good("resume", NAME)
    assert cli.good("exec", NAME, "echo", "awake") == b"awake\n"


def test_a_snapshot_brings_a_file_back(cli: Cli) -> None:
    cli.good("exec", NAME, "--shell", "echo precious >/root/precious")
    cli.good("snapshot", "save", NAME, "before")
    cli.good("exec", NAME, "rm", "/root/precious")
    cli.good("snapshot", "restore", NAME, "before")
    assert cli.good("exec", NAME, "cat", "/root/precious") == b"precious\n"
    (saved,) = json.loads(cli.good("snapshot", "list", NAME, "--json"))
    assert saved["tag"] == "before"
    cli.good("snapshot", "delete", NAME, "before")
    assert json.loads(cli.good("snapshot", "list", NAME, "--json")) == []


def test_the_console_and_its_log_have_what_the_guest_says(cli: Cli) -> None:
    with cli.begin("console", "--history", "0", NAME) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        # Again and again: what is said before we are attached is in the log only.
        say = "for n in 1 2 3 4 5 6; do echo said on the console; sleep 0.3; done >/dev/console"
        cli.good("exec", NAME, "--shell", say)
        assert running.stdout.readline() == b"said on the console\r\n"
        running.stdin.write(b"\x1d")
        running.stdin.flush()
        assert running.wait(PATIENCE_S) == 0
    assert b"said on the console\r\n" in cli.good("console", "--log", NAME)


def test_reset_boots_anew(cli: Cli) -> None:
    cli.good("exec", NAME, "touch", "/tmp/before-reset")
    cli.good("reset", NAME)
    assert cli("exec", NAME, "test", "-e", "/tmp/before-reset").returncode == 1


def test_the_host_is_fit(cli: Cli) -> None:
    done = cli("doctor")
    assert done.returncode == 0, done.stdout.decode()
    findings = json.loads(cli("doctor", "--json").stdout)
    assert {"part", "status", "required", "detail", "fix"} == set(findings[0])


def test_a_folder_goes_in_and_comes_back(cli: Cli, tmp_path: Path) -> None:
    source = everything(tmp_path / "source")
    told = json.loads(cli.good("cp", "-r", "--json", str(source), f"{NAME}:/tmp/"))
    assert (told["destination"], told["files"]) == (f"{NAME}:/tmp/source", 11)
    cli.good("cp", "-r", f"{NAME}:/tmp/source", str(tmp_path / "back"))
    assert looks(tmp_path / "back") == looks(source)
    again = cli("cp", "-r", str(source), f"{NAME}:/tmp/")
    assert again.returncode == 1
    assert b"/tmp/source: is there already; --replace" in again.stderr
    cli.good("cp", "-r", "--replace", "--exclude", "sub", str(source), f"{NAME}:/tmp")
    assert b"sub" not in cli.good("exec", NAME, "ls", "/tmp/source").split()


def test_a_pattern_is_the_guests(cli: Cli, tmp_path: Path) -> None:
    cli.good("exec", "--shell", NAME, "--", "mkdir /tmp/g; cd /tmp/g; touch a.log 'b c.log' d")
    cli.good("cp", f"{NAME}:/tmp/g/*.log", str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a.log", "b c.log"]
    none = cli("cp", f"{NAME}:/tmp/g/*.none", str(tmp_path))
    assert (none.returncode, b"nothing in the guest matches" in none.stderr) == (3, True)


def test_a_hostile_guest_changes_nothing_here(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    line = "mkdir -p /tmp/evil/d; ln -s ../.. /tmp/evil/d/out; ln -s /etc /tmp/evil/etc"
    cli.good("exec", "--shell", NAME, "--", line)
    done = cli("cp", "-r", f"{NAME}:/tmp/evil", str(tmp_path / "target"))
    assert done.returncode == 1
    assert b"is a link out of the tree" in done.stderr
    assert os.listdir(tmp_path) == ["precious"]
    big = cli("cp", "-r", "--max-files", "1", f"{NAME}:/tmp/evil", str(tmp_path / "target"))
    assert b"more than 1 entries; raise --max-files" in big.stderr
    cli("cp", "-r", "--links", "skip", f"{NAME}:/tmp/evil", str(tmp_path / "target"))
    assert os.listdir(tmp_path / "target") == ["d"]


def test_a_sync_that_is_killed_leaves_whole_files_and_is_done_by_the_next(
    cli: Cli, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"{number}").write_bytes(b"new %d" % number * 2000)
    cli.good("exec", "--shell", NAME, "--", "mkdir /tmp/synced; echo old >/tmp/synced/7")
    command = ("sync", "--progress", "json", str(source), f"{NAME}:/tmp/synced")
    for delay_s in (0.6, 0.9, 1.2):
        running = cli.begin(*command)
        time.sleep(delay_s)
        running.kill()
        running.communicate()
        seven = cli.good("exec", NAME, "cat", "/tmp/synced/7")
        assert seven in (b"old\n", b"new 7" * 2000)
    done = cli(*command)
    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "done"
    told = json.loads(cli.good("sync", "--json", str(source), f"{NAME}:/tmp/synced"))
    assert (told["files"], told["unchanged"]) == (0, 300)
    cli.good("sync", "--checksum", f"{NAME}:/tmp/synced", str(tmp_path / "back"))
    assert (tmp_path / "back" / "299").read_bytes() == (source / "299").read_bytes()


def test_a_killed_copy_is_resumed(cli: Cli, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 64)
    running = cli.begin("cp", "--resume", "--progress", "json", str(big), f"{NAME}:/tmp/big")
    assert running.stderr
    while json.loads(running.stderr.readline())["moved_bytes"] < 1 << 24:
        pass
    running.kill()
    running.communicate()
    words = ("cp", "--resume", "--progress", "json", "--verify", "sha256")
    again = cli(*words, str(big), f"{NAME}:/tmp/big")
    assert again.returncode == 0
    first = json.loads(again.stderr.splitlines()[0])
    assert first["moved_bytes"] >= 1 << 24
    cli.good("exec", NAME, "rm", "/tmp/big")


def test_a_copy_that_is_interrupted_leaves_no_trace(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(os.urandom(1 << 20) * 64)
    command = ("cp", "-r", "--progress", "json", str(tmp_path / "source"), f"{NAME}:/tmp/cut")
    running = cli.begin(*command)
    assert running.stderr
    running.stderr.readline()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert b"cut" not in cli.good("exec", NAME, "ls", "-A", "/tmp")
    assert b".hostctl-tree" not in cli.good("exec", NAME, "ls", "-A", "/tmp")
    back = cli.begin("cp", "-r", "--progress", "json", f"{NAME}:/proc/sys", str(tmp_path / "sys"))
    back.send_signal(signal.SIGTERM)
    back.communicate(timeout=PATIENCE_S)
    assert os.listdir(tmp_path) == ["source"]


def test_a_sync_after_a_restore_sends_what_is_gone_again(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one").write_bytes(b"1")
    target = f"{NAME}:/tmp/restored"
    cli.good("sync", str(source), target)
    cli.good("snapshot", "save", NAME, "synced")
    (source / "two").write_bytes(b"22")
    assert json.loads(cli.good("sync", "--json", str(source), target))["files"] == 1
    cli.good("snapshot", "restore", NAME, "synced")
    told = json.loads(cli.good("sync", "--json", str(source), target))
    assert told["changes"] == [["send", "two"]]
    cli.good("snapshot", "delete", NAME, "synced")
