"""What pytest loads: options, the marker `vm`, the fixtures, and a hook on reports.

Loaded by every pytest on a host that has hostctl, wanted or not: it imports nothing more until a
fixture is used. `-p no:hostctl` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from .wish import OPTIONS

if TYPE_CHECKING:
    import pluggy

    from ..sync import Machine
    from .lending import Lender, Setup
    from .wish import VmFactory

LENDER: pytest.StashKey[Lender] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--vm-image` and the like; each is `vm_image` in the ini file."""
    group = parser.getgroup("hostctl", "virtual machines (hostctl)")
    for name, (metavar, text) in OPTIONS.items():
        group.addoption(f"--vm-{name}", metavar=metavar, help=text)
        parser.addini(f"vm_{name}", text)
    timeout = "how long a machine may take to boot, such as 90s or 5m (default: 2m)"
    group.addoption("--vm-timeout", metavar="TIME", help=timeout)
    parser.addini("vm_timeout", timeout)
    keep = "leave the machines of failed tests running, and say how to enter them"
    group.addoption("--vm-keep-failed", action="store_true", help=keep)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    names = ", ".join(f"{name}=…" for name in OPTIONS)
    text = "what machine the fixtures vm… give (hostctl); all tests with a machine have it: -m vm"
    config.addinivalue_line("markers", f"vm({names}): {text}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a machine, so that `-m "not vm"` leaves it out."""
    for item in items:
        if "_vm_lender" in getattr(item, "fixturenames", ()):
            item.add_marker("vm")


# Not `wrapper=True`: a pluggy that is older than it would end every pytest on the host.
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Add to a failed test's report what its machines said."""
    lender = item.config.stash.get(LENDER, None)
    if lender is not None and call.excinfo is not None:
        lender.shorten(call.excinfo.value)
    report = (yield).get_result()
    if lender is not None and report.failed and call.when != "teardown":
        lender.tell(item, report, call.excinfo and call.excinfo.value)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(error: object | None) -> None:
    """Remove the machines of a worker of pytest-xdist that was killed."""
    if error:
        from .lending import sweep

        sweep()


@pytest.fixture
def vm(request: pytest.FixtureRequest, _vm_lender: Lender, vm_setup: Setup) -> Machine:
    """A virtual machine of the test's own, running: a hostctl.sync.Machine."""
    return _vm_lender.lend(request, vm_setup)


@pytest.fixture(scope="module")
def vm_module(request: pytest.FixtureRequest, _vm_lender: Lender, vm_setup: Setup) -> Machine:
    """One virtual machine for all tests of the module."""
    return _vm_lender.lend(request, vm_setup)


@pytest.fixture(scope="session")
def vm_session(request: pytest.FixtureRequest, _vm_lender: Lender, vm_setup: Setup) -> Machine:
    """One virtual machine for all tests of this process. Markers do not reach it, options do."""
    return _vm_lender.lend(request, vm_setup)


@pytest.fixture
def vm_rollback(request: pytest.FixtureRequest, _vm_lender: Lender, vm_setup: Setup) -> Machine:
    """One virtual machine for many tests, brought back before each to where `vm_setup` left it."""
    return _vm_lender.lend_again(request, vm_setup)


@pytest.fixture
def vm_factory(request: pytest.FixtureRequest, _vm_lender: Lender, vm_setup: Setup) -> VmFactory:
    """Call it for a virtual machine, as often as needed; all are removed after the test."""

    def make(
        *,
        image: str | None = None,
        memory: int | str | None = None,
        cpus: int | None = None,
        template: str | None = None,
    ) -> Machine:
        __tracebackhide__ = True
        asked = {"image": image, "memory": memory, "cpus": cpus, "template": template}
        return _vm_lender.lend(request, vm_setup, asked)

    return make


@pytest.fixture(scope="session")
def vm_setup() -> Callable[[Machine], object]:
    """What is done with each new virtual machine before its tests: nothing. Override it."""
    return lambda machine: None


@pytest.fixture(scope="session")
def _vm_lender(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lender]:
    from .lending import lending
    from .words import Words

    words = Words(lambda: tmp_path_factory.mktemp("screens"))
    with lending(pytestconfig, words) as lender:
        pytestconfig.stash[LENDER] = lender
        yield lender
        del pytestconfig.stash[LENDER]
