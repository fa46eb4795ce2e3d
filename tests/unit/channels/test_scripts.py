"""The scripts for a guest: any word survives, any answer is checked."""

import contextlib
import errno
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl_channels.errors import TransferFailed
from hostctl_channels.interface import Command, FileInfo, PutOptions
from hostctl_channels.scripts import (
    GetScript,
    PutScript,
    Shown,
    command_script,
    errno_of,
    quoted,
    show_script,
)

WORDS = st.binary(max_size=50).filter(lambda word: b"\0" not in word)


@given(WORDS)
def test_a_quoted_word_is_one_word(word: bytes) -> None:
    assert shlex.split(quoted(word).decode("latin-1")) == [word.decode("latin-1")]


@given(st.lists(WORDS.filter(bool), min_size=1, max_size=5))
def test_a_commands_words_are_its_last_line(argv: list[bytes]) -> None:
    script = command_script(Command.of(*argv), b"/tmp/f", b"t", fed=False)
    last = script.rpartition(b"</dev/null\n")[2].decode("latin-1")
    assert shlex.split(last) == ["exec", *(word.decode("latin-1") for word in argv)]


def test_a_command_with_everything() -> None:
    command = Command.of("id", "a b", env={"A": "1'2"}, cwd="sub", user="me")
    script = command_script(command, b"/tmp/f", b"t", fed=True).decode()
    assert script.endswith(
        """\
[ ! -e '/tmp/f/o.t' ] || refuse 0 ran
cd './sub' 2>/dev/null || refuse 2 './sub': no such folder to run in
id -u 'me' >/dev/null 2>&1 || refuse 2 no user 'me'
exec >'/tmp/f/o.t' 2>'/tmp/f/e.t' <'/tmp/f/i.t'
export A='1'\\''2'
exec su -s /bin/sh -c 'exec "$@"' -- 'me' sh 'id' 'a b'
"""
    )


def test_a_put_settles_what_was_asked_for_and_no_more() -> None:
    plain = PutScript(b"/f", b"t", b"/a/b", PutOptions(), 8).text(b"")
    assert b"chmod 644" in plain
    assert b"touch" not in plain
    assert b"chown" not in plain
    options = PutOptions(mode=0o750, mtime_s=1e9, owner="a:b")
    full = PutScript(b"/f", b"t", b"/a/b", options, 8)
    assert full.part == b"/a/.hostctl-t"
    assert b'chown \'a:b\' "$part" && chmod 750 "$part" && touch -d @1000000000' in full.text(b"")


def test_what_ran_before_is_removed_first() -> None:
    assert GetScript(b"/f", b"t", b"/a", 8).text(b"rm -f x\n").startswith(b"rm -f x\n")


@pytest.mark.parametrize(
    ("out", "err"), [("", ""), ("o" * 9, "\n"), ("o" * 4096, ""), ("o" * 4096, "e")]
)
def test_little_output_comes_with_its_sizes(tmp_path: Path, out: str, err: str) -> None:
    (tmp_path / "o.7").write_text(out)
    (tmp_path / "e.7").write_text(err)
    subprocess.run(["sh", "-c", show_script(bytes(tmp_path)), "show", "7"], check=True)
    shown = Shown.parse((tmp_path / "n.7").read_bytes())
    assert shown.sizes == (len(out), len(err))
    assert shown.data.decode() == (out + err if len(out + err) <= 4096 else "")


def test_a_command_that_never_began_has_no_note(tmp_path: Path) -> None:
    (tmp_path / "n.7").write_text("old")
    subprocess.run(["sh", "-c", show_script(bytes(tmp_path)), "show", "7"], check=False)
    assert not (tmp_path / "n.7").exists()


@pytest.mark.parametrize("note", [b"", b"1\n", b"3 0\nab", b"0 0\nab", b"9999 0\nab", b"-1 1\n"])
def test_garbled_output_is_told(note: bytes) -> None:
    with pytest.raises(TransferFailed):
        Shown.parse(note)


@pytest.mark.parametrize(
    ("note", "info"),
    [
        (b"12|644 1700000000|" + b"a" * 64 + b"\n", FileInfo(12, 0o644, 1.7e9, "a" * 64)),
        (b"  12||\n", FileInfo(12)),
    ],
)
def test_facts_are_read(note: bytes, info: FileInfo) -> None:
    assert GetScript.facts(note) == info


@given(st.binary(max_size=200))
def test_any_other_facts_are_refused(note: bytes) -> None:
    with contextlib.suppress(TransferFailed):
        assert GetScript.facts(note).size_bytes >= 0


def test_errors_of_tools_have_numbers() -> None:
    assert errno_of(b"/x: dd: can't open '/x': No such file or directory\n") == errno.ENOENT
    assert errno_of(b"mv: /x: Permission denied") == errno.EACCES
    assert errno_of(b"whatever") == errno.EIO
