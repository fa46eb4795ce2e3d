"""What `forward` makes of its words; what it does is tested where there is a guest."""

import pytest

from hostctl.cli.exits import Exit, UsageError
from hostctl.cli.forward import parse
from hostctl.cli.main import main

from .fakes import FakeController


@pytest.mark.parametrize(
    ("text", "local", "guest"),
    [
        ("8080:80", 8080, "80"),
        ("0:10.0.2.2:80", 0, "10.0.2.2:80"),
        ("8080:/run/app.sock", 8080, "/run/app.sock"),
        ("/tmp/my.sock:80", "/tmp/my.sock", "80"),
        ("my.sock:9229", "my.sock", "9229"),
        ("/tmp/a.sock:/run/b.sock", "/tmp/a.sock", "/run/b.sock"),
        ("/tmp/a.sock:localhost:80", "/tmp/a.sock", "localhost:80"),
    ],
)
def test_both_ends_are_read(text: str, local: int | str, guest: str) -> None:
    assert parse(text) == (local, guest)


@pytest.mark.parametrize("text", ["", "80", "8080:", ":80", "/tmp/a.sock", "a.sock:x"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write it like 8080:80"):
        parse(text)


def test_a_mistake_is_told_before_anything_is_done(
    controller: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forward", "web", "nonsense"]) == Exit.USAGE
    assert '"nonsense" is no LOCAL:GUEST' in capsys.readouterr().err
