"""Patterns mean what the shell means by them, and a quoted word arrives as it was typed."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostctl.backends.interface import MachineSpec
from hostctl.cli.several import is_group
from hostctl.errors import ConfigError, NothingMatches
from hostctl.pattern import parse, select

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}", fullmatch=True)
# Few letters, so that names and patterns meet; ranges of one kind, which every locale agrees on.
SHORT = st.text("ab1.-", min_size=1, max_size=5).filter(lambda name: name[0] not in ".-")
PIECE = st.sampled_from(["a", "b", "1", ".", "-", "*", "?", "[ab]", "[!a]", "[0-9]", "[!0-9.]"])
PATTERN = st.lists(PIECE, min_size=1, max_size=6).map("".join)

# ash, bash and dash agree here. LC_ALL keeps ranges to bytes.
CASE = 'p=$1; shift; for n; do case $n in $p) echo "$n";; esac; done'


@given(PATTERN, st.lists(SHORT, max_size=12, unique=True))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("shell", [pytest.param("dash", marks=pytest.mark.needs("dash")), "bash"])
def test_a_pattern_chooses_what_the_shell_would(shell: str, pattern: str, names: list[str]) -> None:
    said = subprocess.run(
        [shell, "-c", CASE, shell, pattern, *names],
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found = select(parse([pattern]), dict.fromkeys(names, ()), allow_empty=True)
    if parse([pattern])[0].is_name:
        assert found == (pattern,)
    else:
        assert list(found) == said


@given(NAME, st.lists(NAME, max_size=8))
def test_a_name_means_itself_alone_and_needs_no_quotes(name: str, others: list[str]) -> None:
    MachineSpec(name, image="tiny")  # it may be one
    assert not is_group([name])
    assert shlex.quote(name) == name
    assert select(parse([name]), dict.fromkeys(others, ())) == (name,)


@given(st.lists(NAME, min_size=1, max_size=4), st.lists(NAME, max_size=4))
def test_commas_and_words_are_the_same(names: list[str], others: list[str]) -> None:
    known = dict.fromkeys([*names, *others], ())
    assert select(parse(names), known) == select(parse([",".join(names)]), known)


@given(st.text(max_size=12))
def test_any_text_is_understood_or_refused(text: str) -> None:
    known = {"web": ("ci",), "1.2": ()}
    try:
        found = select(parse([text]), known)
    except (ConfigError, NothingMatches):
        return
    plain = {selector.text for selector in parse([text]) if selector.is_name}
    assert set(found) <= set(known) | plain


@given(PATTERN)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_quoted_pattern_reaches_us_whatever_files_there_are(tmp_path: Path, pattern: str) -> None:
    for name in ("a", "b1", "ab", "1", "-"):
        (tmp_path / name).touch()
    line = f"printf %s {shlex.quote(pattern)}"
    said = subprocess.check_output(["bash", "-c", line], cwd=tmp_path, text=True)
    assert said == pattern
