import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hostctl


def test_every_public_name_is_there_and_no_other() -> None:
    for name in hostctl.__all__:
        assert getattr(hostctl, name).__name__ == name
    with pytest.raises(AttributeError, match="nonesuch"):
        getattr(hostctl, "nonesuch")  # noqa: B009 the lazy way in is what is tested


def test_the_version_is_that_of_the_project() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == hostctl.__version__


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hostctl", ["asyncio", "logging", "hostctl.machine"]),
        ("hostctl.controller", ["qemu", "construct", "hostctl_images", "tempfile", "rich"]),
        ("hostctl.backends.qemu.backend", ["qemu", "construct", "platform", "tempfile"]),
    ],
)
def test_what_a_command_does_not_need_is_not_loaded(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    path = [str(Path(__file__).parents[3] / root) for root in ("", "channels", "images")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {path}; {code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not set(heavy) & set(done.stdout.split())
