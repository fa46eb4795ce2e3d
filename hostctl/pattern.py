"""Which machines a word means: a name, a pattern of names, a tag. No I/O: names and tags come in.

::

    web         the machine of that name
    web-[0-9]   every machine whose whole name matches; * is any text, ? any character, [a-z]
                and [!a-z] one of these, or none of these
    @ci         every machine that has the tag; patterns too: @ci-*
    web,db,@ci  all of these; several words mean the same

A pattern is that of a shell's file names, except that `*` matches dots: 1.2.* is 1.2.3 and 1.2.3.4.
Names have none of these characters, so nothing is ever escaped.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from .errors import ConfigError, NothingMatches

__all__ = ["Selector", "parse", "select"]

TAG: Final = "@"
SEPARATOR: Final = ","
_SPECIAL: Final = frozenset("*?[]!")
_PATTERN: Final = re.compile(r"(?:[A-Za-z0-9._*?-]|\[!?[A-Za-z0-9._-]+\])+")
MAX_PATTERN: Final = 256  # four times the longest name


class Selector(NamedTuple):
    """One word, understood."""

    text: str  # without the @
    is_tag: bool
    is_pattern: bool

    @property
    def is_name(self) -> bool:
        """It means one machine, whether there is one or not."""
        return not (self.is_tag or self.is_pattern)

    def __str__(self) -> str:
        return f"{TAG if self.is_tag else ''}{self.text}"

    def matches(self, text: str) -> bool:
        """Tell whether a whole name, or a whole tag, is what it means."""
        return fnmatch.fnmatchcase(text, self.text) if self.is_pattern else text == self.text

    def choose(self, known: Mapping[str, Collection[str]]) -> list[str]:
        """Return those of `known`, names with their tags, that are meant, in its order."""
        if self.is_tag:
            return [name for name, tags in known.items() if any(map(self.matches, tags))]
        return [name for name in known if self.matches(name)]


def parse(words: Sequence[str]) -> tuple[Selector, ...]:
    """Understand words, as they were typed.

    Raises:
        ConfigError: one of them could never match: an empty one, an open bracket, a character that
            no name has.
    """
    return tuple(map(_parse, _split(words)))


def select(
    selectors: Sequence[Selector],
    known: Mapping[str, Collection[str]],
    *,
    allow_empty: bool = False,
) -> tuple[str, ...]:
    """Return the names that are meant, each once: in the order of the words, then of `known`.

    A plain name is returned whether it is known or not.

    Raises:
        NothingMatches: a pattern or a tag means no machine; fine with `allow_empty`.
    """
    found: dict[str, None] = {}
    for selector in selectors:
        names = [selector.text] if selector.is_name else selector.choose(known)
        if not names and not allow_empty:
            raise NothingMatches(str(selector))
        found.update(dict.fromkeys(names))
    return tuple(found)


def _split(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        yield from word.split(SEPARATOR)


def _parse(word: str) -> Selector:
    text = word.removeprefix(TAG)
    is_tag, is_pattern = text != word, not _SPECIAL.isdisjoint(text)
    if is_pattern or is_tag or not text:
        _check(word, text)
    return Selector(text, is_tag, is_pattern)


def _check(word: str, text: str) -> None:
    if len(text) > MAX_PATTERN or not _PATTERN.fullmatch(text):
        raise ConfigError(
            f"{word[:MAX_PATTERN]!r} names no machines",
            hint="write a name, a pattern such as 'web-[0-9]' or '1.2.*', or a tag such as @ci; "
            "several are joined by commas",
        )
