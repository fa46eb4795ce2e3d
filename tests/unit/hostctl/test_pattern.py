"""What words mean."""

import pytest

from hostctl.errors import ConfigError, NothingMatches
from hostctl.pattern import MAX_PATTERN, parse, select

KNOWN = {
    "1.2.3": (),
    "1.2.3.4": (),
    "1.3": (),
    "db": ("ci", "big"),
    "web-1": ("ci-slow",),
    "web-10": ("old",),
    "web-2": ("ci",),
}


def chosen(*words: str) -> list[str]:
    return list(select(parse(words), KNOWN))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("db", "db"),
        ("1.2.*", "1.2.3 1.2.3.4"),
        ("web-[0-9]", "web-1 web-2"),
        ("web-?", "web-1 web-2"),
        ("web-*", "web-1 web-10 web-2"),
        ("[!1w]*", "db"),
        ("@ci", "db web-2"),
        ("@ci*", "db web-1 web-2"),
        ("web-2,db", "web-2 db"),
        ("web-2 web-*", "web-2 web-1 web-10"),
        ("web-*,@ci", "web-1 web-10 web-2 db"),
        ("nobody", "nobody"),
    ],
)
def test_words_choose_in_their_order_each_machine_once(words: str, names: str) -> None:
    assert chosen(*words.split()) == names.split()


@pytest.mark.parametrize("word", ["WEB-*", "@CI", "@c", "web", "[9-0]", "*.*.*.*.*"])
def test_what_matches_nothing_is_refused_by_name(word: str) -> None:
    if word == "web":  # a plain name is the caller's to look for
        assert chosen(word) == ["web"]
        return
    with pytest.raises(NothingMatches) as caught:
        chosen(word)
    assert caught.value.selector == word


def test_nothing_may_match_when_that_is_allowed() -> None:
    assert select(parse(["x*", "@none", "db"]), KNOWN, allow_empty=True) == ("db",)


def test_a_match_is_all_or_nothing() -> None:
    """Nothing is chosen at all if one of several words means none: a typing error is no wish."""
    with pytest.raises(NothingMatches):
        chosen("db", "web-x*")


@pytest.mark.parametrize(
    "word",
    [
        *[",", "a,", "@", "@@ci", "web-[", "web-]", "[]", "[!]", "*/x", "a\\*", "[^a]", "é*"],
        "",
        "a b*",
        "*" * (MAX_PATTERN + 1),
    ],
)
def test_what_could_never_match_is_a_mistake(word: str) -> None:
    with pytest.raises(ConfigError, match="names no machines"):
        parse([word])
