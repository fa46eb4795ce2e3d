"""The distribution's packages as files: fetched by apt-get, unpacked by dpkg-deb; no root.

apt checks the signatures. What was fetched stays in the cache and is used again without network.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import procs
from .errors import BuildFailed

__all__ = ["Package", "fetch", "unpack"]

ARCHITECTURE = "amd64"
APT_TIMEOUT_S = 600
LISTS_TIMEOUT_S = 180

PRIVATE_APT = """\
Dir::State "{0}/state";
Dir::Cache "{0}/cache";
Dir::State::status "/var/lib/dpkg/status";
Acquire::Languages "none";
APT::Sandbox::User "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""  # the system's hooks clean folders that only root may clean


@dataclass(frozen=True, slots=True)
class Package:
    """A package file in the cache."""

    name: str
    version: str
    path: Path
    sha256: str


def fetch(name: str, folder: Path, *, renew: bool, progress: Callable[[str], None]) -> Package:
    """Return package `name`, or the one it stands for, from `folder`; fetch it if it is not there.

    Args:
        name: a package, or a metapackage such as linux-image-cloud-amd64.
        folder: where package files are kept.
        renew: ask for the newest one even if there is one.
        progress: told before anything slow begins.

    Raises:
        BuildFailed: this is no Debian-like amd64 system, or the package cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{name}.chosen"
    if not renew and marker.exists() and (chosen := folder / marker.read_text()).exists():
        return _package(chosen)
    _check_system()
    progress(f"fetching package {name}")
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as temporary:
        found = _download(name, Path(temporary))
        path = found.rename(folder / found.name)
    marker.write_text(path.name)
    return _package(path)


def unpack(package: Package, folder: Path) -> None:
    """Unpack a package's files below `folder`."""
    procs.run(["dpkg-deb", "-x", package.path, folder])


def _check_system() -> None:
    hint = "images are built on Debian and its kin, on amd64; copy a cache folder from such a host"
    try:
        found = procs.run(["dpkg", "--print-architecture"]).strip()
    except BuildFailed as err:
        raise BuildFailed(f"this system has no Debian packages: {err}", hint=hint) from err
    if found != ARCHITECTURE:
        raise BuildFailed(f"this host is {found}, the image is for {ARCHITECTURE}", hint=hint)


def _download(name: str, folder: Path) -> Path:
    try:
        return _downloaded(name, folder, ["-o", "APT::Sandbox::User="])
    except BuildFailed:
        return _downloaded(name, folder, ["-c", str(_private_lists(folder))])


def _downloaded(name: str, folder: Path, options: list[str]) -> Path:
    real = _resolve(name, options)
    argv = ["apt-get", *options, "-q", "download", real]
    procs.run(argv, cwd=folder, timeout_s=APT_TIMEOUT_S)
    found = list(folder.glob("*.deb"))
    if len(found) != 1:
        raise BuildFailed(f"apt-get download {real} left {len(found)} packages")
    return found[0]


def _private_lists(folder: Path) -> Path:
    """Fetch package lists of our own: the system has none, and only root may fetch those."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    config = folder / "apt.conf"
    config.write_text(PRIVATE_APT.format(folder))
    procs.run(["apt-get", "-c", config, "-q", "update"], timeout_s=LISTS_TIMEOUT_S)
    return config


def _resolve(name: str, options: list[str]) -> str:
    """Return the package that metapackage `name` stands for now, or `name` itself.

    A kernel's metapackage depends on the package with the version in its name.
    """
    try:
        text = procs.run(["apt-cache", *options, "show", "--no-all-versions", name])
    except BuildFailed as err:
        hint = "run 'apt-get update' as root; see that /etc/apt/sources.list has Debian's main part"
        raise BuildFailed(f"apt knows no package {name}", hint=hint) from err
    needs = re.search(r"^Depends: (linux-image-\d\S*)", text, re.MULTILINE)
    return needs[1] if needs else name


def _package(path: Path) -> Package:
    name, version, _ = path.name.split("_")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Package(name, version.replace("%3a", ":"), path, digest)
