"""Where a login comes from, and where its password never goes."""

from pathlib import Path

import pytest

from hostctl_channels.errors import LocalProtocolError
from hostctl_channels.login import Login


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_of_ours_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "login", 'user = "root"\npassword = "s3cret"\n')
    assert Login.read(path) == Login("root", "s3cret")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "login", 'user = "root"\npassword = "s3cret"\n', mode)
    with pytest.raises(LocalProtocolError) as caught:
        Login.read(path)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        'password = "s3cret"',
        "user = 1\n",
        'user = "a"\npassword = ["s3cret"]',
        'user = "a"\nother = "s3cret"',
        'user = "a"\npassword = "s3cret\\n"',
        'user = ""\n',
    ],
)
def test_a_file_that_makes_no_sense_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Login.read(write(tmp_path / "login", text))
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__cause__)


def test_a_password_is_asked_for_and_never_shown() -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "s3cret"

    login = Login.ask("root", prompt=prompt)
    assert login == Login("root", "s3cret")
    assert asked == ["password of root in the guest: "]
    assert "s3cret" not in repr(login)
