"""Finding images: what counts as built, and what as out of date."""

from pathlib import Path

import pytest

import hostctl_guestside
import hostctl_images
from hostctl_images import ImageNotFound
from hostctl_images.image import MANIFEST, cache_folder

pytestmark = pytest.mark.needs("dpkg-deb")


def test_image_that_was_never_built_is_not_found(cache: Path) -> None:
    with pytest.raises(ImageNotFound, match="image tiny is not built") as caught:
        hostctl_images.find("tiny")
    assert caught.value.hint == "hostctl image build tiny"
    assert hostctl_images.available() == ()


@pytest.mark.parametrize("name", ["none", "", "../tiny", "/tiny", ".tiny"])
def test_unknown_name_is_refused(cache: Path, name: str) -> None:
    for function in (hostctl_images.find, hostctl_images.build):
        with pytest.raises(ImageNotFound, match="there is no image"):
            function(name)


def test_built_image_is_found(packages: Path) -> None:
    built = hostctl_images.build("tiny")
    assert hostctl_images.find("tiny") == built
    assert hostctl_images.available() == (built,)
    assert built.size_bytes == built.kernel.stat().st_size + built.initrd.stat().st_size
    assert "console=ttyS0" in built.append


def test_image_with_an_old_agent_is_out_of_date(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hostctl_images.build("tiny")
    monkeypatch.setattr(hostctl_guestside, "agent", lambda: b"#!/bin/sh\n# another one\n")
    with pytest.raises(ImageNotFound, match="out of date"):
        hostctl_images.find("tiny")
    assert hostctl_images.available() == ()
    after = hostctl_images.build("tiny")
    assert after.digest != before.digest
    assert after.initrd == before.initrd
    assert b"# another one" in after.initrd.read_bytes()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"append": 1}'])
def test_damaged_manifest_counts_as_not_built(packages: Path, damage: str) -> None:
    image = hostctl_images.build("tiny")
    (image.kernel.parent / MANIFEST).write_text(damage)
    with pytest.raises(ImageNotFound):
        hostctl_images.find("tiny")
    assert hostctl_images.build("tiny").digest == image.digest


def test_image_without_its_kernel_counts_as_not_built(packages: Path) -> None:
    hostctl_images.build("tiny").kernel.unlink()
    with pytest.raises(ImageNotFound):
        hostctl_images.find("tiny")


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSTCTL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/hostctl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/.cache/hostctl")
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", "/own")
    assert cache_folder() == Path("/own")
