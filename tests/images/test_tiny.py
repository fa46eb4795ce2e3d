"""The recipe itself: what is in the real image, and that it comes out the same again."""

import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest

import hostctl_guestside
import hostctl_images
from hostctl_images import tiny
from hostctl_images.image import cache_folder

SAFE_WITH_KVM = ("tsc_early_khz", "lpj=", "tsc=reliable", "clocksource=")


@pytest.fixture(scope="module")
def image() -> hostctl_images.Image:
    return hostctl_images.build("tiny")


@pytest.mark.needs("shellcheck", "shfmt")
@pytest.mark.parametrize("script", tiny.SCRIPTS)
def test_script_is_clean(script: str) -> None:
    text = (resources.files(tiny) / script).read_bytes()
    for words in (["shellcheck", "-"], ["shfmt", "-d"]):
        done = subprocess.run(words, input=text, capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, b"")


def test_command_line_states_no_clock_speed() -> None:
    assert not [word for word in SAFE_WITH_KVM if word in tiny.APPEND]


@pytest.mark.slow
@pytest.mark.needs("dpkg-deb", "apt-get", "busybox")
def test_files_of_the_image(image: hostctl_images.Image) -> None:
    with image.initrd.open("rb") as archive:
        done = subprocess.run(
            ["busybox", "cpio", "-t"], stdin=archive, capture_output=True, timeout=30, check=True
        )
    names = done.stdout.decode().splitlines()
    modules = [name.rpartition("-")[2] for name in names if name.endswith(".ko")]
    assert modules.index("virtio_ring.ko") < modules.index("virtio.ko")
    assert modules.index("virtio.ko") < modules.index("virtio_pci.ko")
    assert {"init", "bin/sh", "bin/dd", "bin/hostctl-agent", "dev/console"} <= set(names)
    assert hostctl_guestside.agent() in image.initrd.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.needs("dpkg-deb", "apt-get")
def test_real_packages_give_the_same_image_again(
    image: hostctl_images.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").symlink_to(cache_folder() / "packages")
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(tmp_path))
    again = hostctl_images.build("tiny")
    assert again.digest == image.digest
    assert not os.path.samefile(again.kernel, image.kernel)
