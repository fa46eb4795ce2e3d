"""Packages: what is there is used, what is missing is named."""

from pathlib import Path

import pytest

from hostctl_images import packages, procs
from hostctl_images.errors import BuildFailed


def silent(line: str) -> None:
    raise AssertionError(f"nothing slow was to happen: {line}")


def test_package_in_the_cache_is_used_without_asking_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "tool_1%3a2.3-4_amd64.deb").write_bytes(b"package")
    (tmp_path / "meta.chosen").write_text("tool_1%3a2.3-4_amd64.deb")
    package = packages.fetch("meta", tmp_path, renew=False, progress=silent)
    assert (package.name, package.version) == ("tool", "1:2.3-4")
    assert package.sha256.startswith("bc4a7118")


def test_system_without_packages_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailed, match="no Debian packages: program dpkg is missing") as caught:
        packages.fetch("tool", tmp_path, renew=False, progress=silent)
    assert "copy a cache folder" in str(caught.value.hint)


def test_other_architecture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procs, "run", lambda argv: "riscv64\n")
    with pytest.raises(BuildFailed, match="this host is riscv64"):
        packages.fetch("tool", tmp_path, renew=False, progress=silent)


@pytest.mark.needs("dpkg-deb")
def test_failed_tool_says_what_it_said(tmp_path: Path) -> None:
    broken = tmp_path / "a_1_amd64.deb"
    broken.write_bytes(b"no package")
    package = packages.Package("a", "1", broken, "")
    with pytest.raises(
        BuildFailed, match=r"dpkg-deb failed with status \d: .*unexpected end of file"
    ):
        packages.unpack(package, tmp_path / "out")


def test_tool_without_end_is_stopped() -> None:
    with pytest.raises(BuildFailed, match=r"did not end within 0\.1 s"):
        procs.run(["sleep", "60"], timeout_s=0.1)
