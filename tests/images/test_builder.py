"""Building: the same bytes from the same inputs, one builder at a time, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hostctl_images
from hostctl_images import cpio
from hostctl_images import packages as package_files
from hostctl_images.builder import _locked
from hostctl_images.image import MANIFEST

pytestmark = pytest.mark.needs("dpkg-deb")

BUILD = "import hostctl_images; print(hostctl_images.build('tiny', force={}).digest)"
DIE_HALF_WAY = """
import os, signal
import hostctl_images
from hostctl_images import cpio
def die(out, entries):
    out.write(b"half an archive")
    out.flush()
    os.kill(os.getpid(), signal.SIGKILL)
cpio.write = die
hostctl_images.build("tiny")
"""


def leftovers(cache: Path) -> list[str]:
    """List what is neither a link nor what one names."""
    images = cache / "images"
    named = (images / "tiny").readlink().name
    hidden = [path.name for path in cache.glob("*/.*") if path.name != named]
    return sorted(hidden)


def test_two_builds_give_the_same_bytes(
    packages: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hostctl_images.build("tiny")
    other = cache.with_name("other")
    other.mkdir()
    (other / "packages").symlink_to(packages)
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(other))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    old = os.umask(0o077)
    try:
        second = hostctl_images.build("tiny")
    finally:
        os.umask(old)
    assert second.initrd != first.initrd
    assert second.digest == first.digest
    assert second.initrd.read_bytes() == first.initrd.read_bytes()


def test_built_image_is_not_built_again(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hostctl_images.build("tiny")
    monkeypatch.setenv("PATH", "/nowhere")
    steps: list[str] = []
    assert hostctl_images.build("tiny", progress=steps.append) == first
    assert steps == []


def test_unpacked_kernel_is_kept_when_only_the_rest_changed(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    image = hostctl_images.build("tiny", progress=steps.append)
    assert steps == ["unpacking linux-image-6.1.0-1-cloud-amd64", "building image tiny"]
    image.initrd.unlink()
    steps.clear()
    assert hostctl_images.build("tiny", progress=steps.append).digest == image.digest
    assert steps == ["building image tiny"]


def test_manifest_names_every_input(packages: Path) -> None:
    image = hostctl_images.build("tiny")
    manifest = json.loads((image.kernel.parent / MANIFEST).read_bytes())
    assert manifest["digest"] == image.digest
    assert sorted(manifest["packages"]) == ["busybox-static", "linux-image-6.1.0-1-cloud-amd64"]
    assert all(len(sha256) == 64 for _, sha256 in manifest["packages"].values())
    assert sorted(manifest["texts"]) == ["agent", "button", "rc", "recipe"]
    assert sorted(manifest["outputs"]) == ["initrd", "vmlinux"]


def test_force_asks_for_the_newest_packages(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = package_files.fetch

    def fetch(name: str, folder: Path, *, renew: bool, progress: object) -> object:
        asked.append((name, renew))
        return real(name, folder, renew=False, progress=print)

    hostctl_images.build("tiny")
    monkeypatch.setattr(package_files, "fetch", fetch)
    hostctl_images.build("tiny", force=True)
    assert asked == [("linux-image-cloud-amd64", True), ("busybox-static", True)]


def test_failed_build_leaves_the_image_that_was_there(
    packages: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hostctl_images.build("tiny")
    text = before.initrd.read_bytes()

    def fail(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cpio, "write", fail)
        patch.setattr(package_files, "fetch", _unrenewed(package_files.fetch))
        with pytest.raises(OSError, match="No space"):
            hostctl_images.build("tiny", force=True)
    assert hostctl_images.find("tiny") == before
    assert before.initrd.read_bytes() == text
    before.initrd.unlink()
    hostctl_images.build("tiny")
    assert leftovers(cache) == []


def test_killed_build_leaves_nothing_that_the_next_does_not_clean(
    packages: Path, cache: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", DIE_HALF_WAY], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list((cache / "images").glob(".tiny-*"))
    hostctl_images.build("tiny")
    assert leftovers(cache) == []


def test_builders_at_once_make_one_image(packages: Path, cache: Path) -> None:
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD.format(False)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    digests = {builder.communicate(timeout=60)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0] * 4
    assert digests == {hostctl_images.find("tiny").digest}
    assert leftovers(cache) == []


def test_second_builder_says_that_it_waits(packages: Path) -> None:
    words = [sys.executable, "-u", "-c", "import hostctl_images; hostctl_images.build('tiny', "]
    words[-1] += "progress=print)"
    with _locked(print), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "waiting for another build\n"
        time.sleep(0.05)
        assert builder.poll() is None
        builder.kill()


def test_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(tmp_path / "file/cache"))
    with pytest.raises(hostctl_images.BuildFailed, match="cannot use the cache folder") as caught:
        hostctl_images.build("tiny")
    assert "HOSTCTL_CACHE_DIR" in str(caught.value.hint)


def _unrenewed(real: object) -> object:
    def fetch(name: str, folder: Path, *, renew: bool, progress: object) -> object:
        assert callable(real)
        return real(name, folder, renew=False, progress=progress)

    return fetch
