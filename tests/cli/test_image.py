"""Images from the command line."""

import json
from collections.abc import Callable

import pytest

import hostctl_images
from hostctl.cli.main import main
from hostctl_images import Image


def test_recipes_are_listed_whether_built_or_not(
    built_tiny: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "list"]) == 0
    head, big, tiny = capsys.readouterr().out.splitlines()
    assert head.split() == ["IMAGE", "SIZE", "BUILT", "DIGEST"]
    assert big.split() == ["big", "-", "no", "-"]
    assert tiny.startswith("tiny   9 MiB  2026-01-0")
    assert tiny.endswith(built_tiny.digest[:12])


def test_unbuilt_images_have_the_same_keys(
    built_tiny: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "list", "--json"]) == 0
    big, tiny = json.loads(capsys.readouterr().out)
    assert list(big) == list(tiny)
    assert big["built"] is None
    assert tiny["kernel"] == str(built_tiny.kernel)


def test_build_is_asked_for(
    built_tiny: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, bool]] = []

    def build(name: str, *, force: bool, progress: Callable[[str], None]) -> Image:
        asked.append((name, force))
        progress("unpacking the kernel")
        return built_tiny

    monkeypatch.setattr(hostctl_images, "build", build)
    assert main(["image", "build", "tiny", "--force", "--json"]) == 0
    assert asked == [("tiny", True)]
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
