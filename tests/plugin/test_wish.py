"""Who decides what a test's machine is, and what it is called."""

from typing import Any

import pytest

from hostctl.backends.interface import check_name
from hostctl.errors import ConfigError
from hostctl.pytest_plugin.lending import _stem
from hostctl.pytest_plugin.wish import _merged


def merged(*levels: dict[str, Any]) -> dict[str, Any]:
    return dict(_merged([(f"level {number}", level) for number, level in enumerate(levels)]))


def test_the_nearer_wins_key_by_key() -> None:
    assert merged({}, {"memory": 512}, {"memory": 64, "cpus": 2}) == {"memory": 512, "cpus": 2}


def test_a_shape_puts_a_farther_template_away() -> None:
    assert merged({"memory": 512}, {"template": "t"}, {"cpus": 2}) == {"memory": 512, "cpus": 2}


def test_a_template_puts_a_farther_shape_away() -> None:
    assert merged({"template": "t"}, {"memory": 512}, {"template": "u"}) == {"template": "t"}


def test_one_who_wants_both_is_told() -> None:
    with pytest.raises(ConfigError, match="level 1 names a template and cpus"):
        merged({}, {"cpus": 2, "template": "t"})


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("test_vm", "test-vm"),
        ("test_vm[a/b-ä.py]", "test-vm-a-b-py"),
        ("sub/test_mod.py", "test-mod"),
        ("", "session"),
        ("test_" + "long_" * 20, "test-long-long-long-long"),
        ("Überprüfung", "berpr-fung"),
    ],
)
def test_a_machine_is_called_after_its_test(name: str, stem: str) -> None:
    assert _stem(name) == stem
    assert check_name(f"{stem}-0a1b2c")
