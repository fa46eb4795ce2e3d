import pytest

from hostctl.tree.exclude import Exclude


@pytest.mark.parametrize(
    ("pattern", "path", "is_hit"),
    [
        ("*.o", b"a.o", True),
        ("*.o", b"x/y/a.o", True),
        ("*.o", b"a.c", False),
        ("a*z", b"a/z", False),
        ("build", b"x/build", True),
        ("build/", b"build", True),
        ("/build", b"build", True),
        ("/build", b"x/build", False),
        ("docs/*.html", b"docs/a.html", True),
        ("docs/*.html", b"x/docs/a.html", True),
        ("docs/*.html", b"docs/x/a.html", False),
        ("/docs/*.html", b"x/docs/a.html", False),
        ("[ab]?", b"bx", True),
        (b"\xff*", b"\xff\xfe", True),
        ("", b"a", False),
    ],
)
def test_a_pattern_matches_names_and_ends_of_paths(
    pattern: str | bytes, path: bytes, is_hit: bool
) -> None:
    assert Exclude([pattern])(path) is is_hit


def test_a_guests_find_is_told_only_what_it_means_as_we_do() -> None:
    assert Exclude(["*.o", "/top", "a/b", "x"]).names() == [b"*.o", b"x"]
    assert not Exclude()
