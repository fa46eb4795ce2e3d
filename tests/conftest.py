"""What every test may rely on: markers, longer time for machines, and no skip that looks green.

At home a test whose real part is missing is skipped. Where `HOSTCTL_REQUIRE` names the part
(or says `all`), and wherever `CI=true`, the same skip is a failure: see `Demand`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.qga import BINARY
from tests.virtualbox import laboratory

if TYPE_CHECKING:
    from tests.libvirt.daemon import Daemon

VM_TIMEOUT_S = 300  # a cold boot under TCG on a busy two-core box, and the test itself

HARMLESS = "not here: "
"""A skip reason that begins so is no missing part (for example "not here: needs no root")."""


@dataclass(frozen=True, slots=True)
class Part:
    """A real thing that tests use: how to see that it is there, and what to do if it is not."""

    is_present: Callable[[], bool]
    fix: str


def _program(name: str, package: str) -> Part:
    return Part(lambda: shutil.which(name) is not None, f"apt-get install {package}")


PARTS: Mapping[str, Part] = {
    "qemu": _program("qemu-system-x86_64", "qemu-system-x86"),
    "qemu-img": _program("qemu-img", "qemu-utils"),
    "busybox": _program("busybox", "busybox-static"),
    "dash": _program("dash", "dash"),
    "bash": _program("bash", "bash"),
    "mksh": _program("mksh", "mksh"),
    "start-stop-daemon": _program("start-stop-daemon", "dpkg"),
    "strace": _program("strace", "strace"),
    "zsh": _program("zsh", "zsh"),
    "fish": _program("fish", "fish"),
    "shellcheck": _program("shellcheck", "shellcheck"),
    "shfmt": _program("shfmt", "shfmt"),
    "agetty": Part(lambda: os.path.exists("/sbin/agetty"), "apt-get install util-linux"),
    "dpkg-deb": _program("dpkg-deb", "dpkg"),
    "apt-get": _program("apt-get", "apt"),
    "qemu-ga": Part(lambda: shutil.which(BINARY) is not None, "apt-get install qemu-guest-agent"),
    "mmdebstrap": _program("mmdebstrap", "mmdebstrap"),
    "fakechroot": _program("fakechroot", "fakechroot"),
    "fakeroot": _program("fakeroot", "fakeroot"),
    "mke2fs": Part(
        lambda: shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None,
        "apt-get install e2fsprogs",
    ),
    "libvirt": Part(
        lambda: Path("/usr/sbin/libvirtd").exists() and find_spec("libvirt") is not None,
        "apt-get install libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients "
        "libvirt-dev; pip install libvirt-python",
    ),
    "libvirt-python": Part(
        lambda: find_spec("libvirt") is not None,
        "apt-get install libvirt-dev pkg-config gcc; pip install libvirt-python",
    ),
    "sshd": Part(lambda: Path("/usr/sbin/sshd").exists(), "apt-get install openssh-server"),
    "nc": _program("nc", "netcat-openbsd"),
    "virtualbox-lab": Part(laboratory.is_possible, laboratory.MISSING),
    "script": _program("script", "bsdutils"),
    "socat": _program("socat", "socat"),
    "perl": _program("perl", "perl-base"),
    "python3": _program("python3", "python3"),
}
"""Names for `@pytest.mark.needs(...)`."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Which parts must be there."""

    parts: frozenset[str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Demand":
        """Read the wish from the environment: `HOSTCTL_REQUIRE=qemu,mksh`, `=all`, or `CI=true`."""
        default = "all" if environ.get("CI") == "true" else ""
        words = environ.get("HOSTCTL_REQUIRE", default).replace(",", " ").split()
        return cls(frozenset(words))

    def covers(self, part: str) -> bool:
        return part in self.parts or self.is_total

    @property
    def is_total(self) -> bool:
        return "all" in self.parts


pytest_plugins = ["pytester"]  # for tests of our own plugin; may stand nowhere else

_DEMAND = Demand.of(os.environ)


@pytest.fixture(scope="session")
def libvirtd() -> "Iterator[Daemon]":
    """Return a libvirtd that runs for all tests that ask for it, and only for them."""
    from tests.libvirt.daemon import Daemon

    # Not tmp_path: its long name would not leave room for the sockets' paths.
    with tempfile.TemporaryDirectory(prefix="hl-") as root, Daemon(Path(root)) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def lab() -> "Iterator[laboratory.Lab]":
    """Return a VirtualBox that runs for all tests that ask for it, and only for them."""
    with laboratory.Lab() as lab:
        yield lab


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give machines time, and keep the tests of a file together, that they boot but one.

    A `vm` test without a timeout of its own gets `VM_TIMEOUT_S`. What takes longest comes first,
    and many short ones come last, so that all workers end together.
    """
    items.sort(key=_turn)
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))
        if item.get_closest_marker("vm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(VM_TIMEOUT_S))


def _turn(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    if group is not None and group.args[0].startswith(laboratory.GROUP):
        return 0
    return 2 if "unit" in item.path.parts else 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose real parts are missing."""
    if item.get_closest_marker("nightly") and not os.environ.get("HOSTCTL_NIGHTLY"):
        pytest.skip(f"{HARMLESS}a nightly test; set HOSTCTL_NIGHTLY=1 to run it")
    for name in _needed_parts(item):
        part = PARTS[name]
        if part.is_present():
            continue
        reason = f"{name} is missing: {part.fix}"
        if _DEMAND.covers(name):
            pytest.fail(f"{reason} (required by HOSTCTL_REQUIRE or CI)", pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, turn any other skip into a failure too."""
    report = yield
    if _DEMAND.is_total and report.skipped and not hasattr(report, "wasxfail"):
        reason = _skip_reason(report)
        if not reason.startswith(HARMLESS):
            report.outcome = "failed"
            report.longrepr = f"skipped where all real parts are required: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is collected."""
    report = yield
    if _DEMAND.is_total and report.skipped:
        reason = _skip_reason(report)
        if not reason.startswith(HARMLESS):
            report.outcome = "failed"
            report.longrepr = f"skipped where all real parts are required: {reason}"
    return report


def _needed_parts(item: pytest.Item) -> list[str]:
    """List the parts that the item's markers name, those of `vm` first."""
    names = ["qemu", "qemu-img"] if item.get_closest_marker("vm") else []
    for marker in item.iter_markers("needs"):
        names.extend(marker.args)
    return names


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Say why, in the words of the skip; pytest keeps (path, line, "Skipped: why")."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
