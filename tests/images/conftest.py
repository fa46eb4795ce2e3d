"""A cache folder of the test's own, with tiny packages that stand for the distribution's."""

import subprocess
from pathlib import Path

import pytest

APPLETS = "#!/bin/sh\nprintf '%s\\n' ash busybox sh\n"
VIRTIO = {"virtio": "virtio_ring", "virtio_ring": "", "virtio_console": "virtio"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in which the environment makes hostctl_images look."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HOSTCTL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def packages(cache: Path, tmp_path: Path) -> Path:
    """Put a kernel and a busybox of some bytes into the cache, as real packages."""
    folder = cache / "packages"
    folder.mkdir(parents=True)
    kernel = {"boot/vmlinuz-6.1.0-1": b"\x7fELF a kernel"}
    for name, needs in VIRTIO.items():
        text = b"\x7fELF\0depends=" + needs.encode() + b"\0"
        kernel[f"lib/modules/6.1.0-1/kernel/{name}.ko"] = text
    _package(tmp_path, folder, "linux-image-cloud-amd64", "linux-image-6.1.0-1-cloud-amd64", kernel)
    busybox = {"bin/busybox": APPLETS.encode()}
    _package(tmp_path, folder, "busybox-static", "busybox-static", busybox)
    return folder


def _package(work: Path, folder: Path, wanted: str, name: str, files: dict[str, bytes]) -> None:
    root = work / "packages" / name
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        (root / path).chmod(0o755)
    (root / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    (root / "DEBIAN/control").write_text(control)
    made = folder / f"{name}_1_amd64.deb"
    words = ["dpkg-deb", "-Znone", "--root-owner-group", "-b", str(root), str(made)]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    (folder / f"{wanted}.chosen").write_text(made.name)
