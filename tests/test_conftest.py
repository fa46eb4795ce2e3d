"""The rule that no skip looks green: tried on a small test run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

TESTS = """
import pytest

@pytest.mark.needs("mksh")
def test_part(): pass

@pytest.mark.skip(reason="I do not feel like it")
def test_mood(): pass

@pytest.mark.skip(reason="not here: needs no root")
def test_harmless(): pass

@pytest.mark.xfail
def test_expected(): assert False
"""
BARE = {"PATH": "/nowhere", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
MARKERS = "[pytest]\nmarkers =\n    vm\n    needs\n    xdist_group\n"


def outcome(folder: Path, **wish: str) -> str:
    """Run TESTS where mksh is missing and return pytest's last line."""
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text(MARKERS)
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "HOSTCTL_REQUIRE")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**kept, **wish, **BARE},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout.splitlines()[-1].partition(" in ")[0]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({}, "3 skipped, 1 xfailed"),
        ({"HOSTCTL_REQUIRE": "qemu, mksh"}, "2 skipped, 1 xfailed, 1 error"),
        ({"CI": "true"}, "1 skipped, 1 xfailed, 2 errors"),
        ({"CI": "true", "HOSTCTL_REQUIRE": ""}, "3 skipped, 1 xfailed"),
    ],
)
def test_skip_for_a_missing_part_fails_where_it_is_required(
    tmp_path: Path, wish: dict[str, str], expected: str
) -> None:
    assert outcome(tmp_path, **wish) == expected


def test_xdist_heeds_the_groups(request: pytest.FixtureRequest) -> None:
    """Or each worker has a lab, a libvirtd and machines of its own."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("not here: one process runs all tests")
    assert request.node.nodeid.endswith("@tests/test_conftest")
