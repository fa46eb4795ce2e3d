"""The machines of one pytest process: made for a test, told of when it fails, taken back after it.

Each is a clone owned by this process: were it killed, the next one's `sweep_throwaways`, or that of
`hostctl run` and `hostctl list`, would remove them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from ..cli.units import parse_duration
from ..errors import ConfigError, HostctlError, MachineNotFound
from ..state import Home
from ..sync import Controller, Machine
from .wish import Wish
from .words import Words, complaint, shortened

__all__ = ["Lender", "Setup", "lending", "sweep"]

logger = logging.getLogger(__name__)

BOOT_S: Final = 120.0
FRESH: Final = "fresh"  # the snapshot to which vm_rollback goes back
STEM: Final = 24  # of a test's name in its machine's; a socket's path has 107 bytes for all

Setup = Callable[[Machine], object]
Key = tuple[Wish, Setup]


@dataclass(eq=False, slots=True)
class Loan:
    """A machine, and who has it: an item, a module, the session."""

    machine: Machine
    node: Any  # an item or a collector, which share no public base class
    fixture: str
    is_kept: bool = False

    def is_of(self, item: pytest.Item) -> bool:
        """Tell whether `item` uses it."""
        names = getattr(item, "fixturenames", ())
        return self.node is item or (self.node in item.listchain() and self.fixture in names)


@contextlib.contextmanager
def lending(config: pytest.Config, words: Words) -> Iterator[Lender]:
    """Open the user's home, and sweep it; take back every machine at the end."""
    with contextlib.ExitStack() as stack:
        with _refusals():
            controller = stack.enter_context(Controller())
            controller.sweep_throwaways()
            lender = Lender(config, controller, words)
        stack.callback(lender.close)
        yield lender


def sweep() -> None:
    """Remove machines whose process was killed, if this user ever had any."""
    home = Home.default()
    if home.machines.exists():
        with contextlib.suppress(HostctlError), Controller(home) as controller:
            controller.sweep_throwaways()


class Lender:
    """Lends machines to fixtures."""

    def __init__(self, config: pytest.Config, controller: Controller, words: Words) -> None:
        self._controller = controller
        self._words = words
        self._timeout_s = _timeout_s(config)
        self._keeps_failed = bool(config.getoption("vm_keep_failed"))
        self._is_full = bool(config.getoption("fulltrace"))
        self._failures: dict[Wish, HostctlError] = {}
        self._loans: list[Loan] = []
        self._again: tuple[Key, Loan] | None = None

    def close(self) -> None:
        """Take back what is still lent: the machine of `vm_rollback`."""
        for loan in tuple(self._loans):
            self._take_back(loan)

    def lend(
        self,
        request: pytest.FixtureRequest,
        setup: Setup,
        asked: Mapping[str, Any] | None = None,
    ) -> Machine:
        """Return a new machine, set up; it is taken back when the fixture's scope ends."""
        __tracebackhide__ = True
        loan = self._new(request, asked or {})
        request.addfinalizer(lambda: self._take_back(loan))
        setup(loan.machine)
        return loan.machine

    def lend_again(self, request: pytest.FixtureRequest, setup: Setup) -> Machine:
        """Return the one machine of many tests, as it was set up; or a new one.

        There is one at a time: a test that wants another kind ends it.
        """
        __tracebackhide__ = True
        with _refusals():
            key = (Wish.of(request, {}), setup)
        if self._again is not None and self._again[0] == key and _is_restored(self._again[1]):
            loan = self._again[1]
            loan.node = request.node
            return loan.machine
        self._end_again()
        loan = self._new(request, {})
        request.addfinalizer(lambda: self._take_back_unless_again(loan))
        setup(loan.machine)
        loan.machine.save_snapshot(FRESH)
        self._again = (key, loan)
        return loan.machine

    def shorten(self, error: BaseException) -> None:
        """Leave our own inside out of an error that we raised on purpose."""
        if isinstance(error, HostctlError) and not self._is_full:
            shortened(error)

    def tell(
        self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None
    ) -> None:
        """Add to the report of a test that failed; keep its machines if that is wanted."""
        self._words.of_error(report, error)
        for loan in [loan for loan in self._loans if loan.is_of(item)]:
            with contextlib.suppress(MachineNotFound):  # the test has deleted it
                self._words.of_machine(report, loan.machine)
                if self._keeps_failed:
                    self._keep(loan)
                    self._words.of_kept(report, loan.machine)

    def _new(self, request: pytest.FixtureRequest, asked: Mapping[str, Any]) -> Loan:
        with _refusals():
            template = self._template(Wish.of(request, asked))
            name = f"{_stem(request.node.name)}-{os.urandom(3).hex()}"
            machine = self._controller.clone(
                template, name, timeout_s=self._timeout_s, owner_pid=os.getpid()
            )
        loan = Loan(machine, request.node, request.fixturename or "")
        self._loans.append(loan)
        return loan

    def _template(self, wish: Wish) -> str:
        """Return the template to clone, made if it is not there.

        A failure is remembered: the next test's would take as long.
        """
        if wish.template is not None:
            return wish.template
        if wish in self._failures:
            raise self._failures[wish]
        try:
            return self._ready(wish)
        except HostctlError as err:
            self._failures[wish] = err
            raise

    def _ready(self, wish: Wish) -> str:
        found = self._controller.template_of(
            wish.image,
            memory_mib=wish.memory_mib,
            cpus=wish.cpus,
            timeout_s=self._timeout_s,
            progress=logger.info,
        )
        spec = found.spec
        if (spec.image, spec.memory_mib, spec.cpus) != (wish.image, wish.memory_mib, wish.cpus):
            raise ConfigError(
                f"template {found.name!r} has {spec.memory_mib} MiB and {spec.cpus} CPUs of image "
                f"{spec.image}: it is not that of image {wish.image}",
                hint=f"hostctl template delete {found.name}",
            )
        return found.name

    def _keep(self, loan: Loan) -> None:
        self._controller.keep(loan.machine.name)
        loan.is_kept = True
        if self._again is not None and self._again[1] is loan:
            self._again = None

    def _take_back(self, loan: Loan) -> None:
        if loan not in self._loans:
            return
        self._loans.remove(loan)
        if loan.is_kept:
            loan.machine.close()
        else:
            with contextlib.suppress(MachineNotFound):  # the test has deleted it
                loan.machine.delete(force=True)

    def _take_back_unless_again(self, loan: Loan) -> None:
        if self._again is None or self._again[1] is not loan:
            self._take_back(loan)

    def _end_again(self) -> None:
        if self._again is not None:
            loan = self._again[1]
            self._again = None
            self._take_back(loan)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Make of our errors a failure without a traceback: it is no fault of the test's."""
    try:
        yield
    except HostctlError as err:
        raise pytest.fail.Exception(complaint(err), pytrace=False) from None


def _is_restored(loan: Loan) -> bool:
    try:
        loan.machine.restore_snapshot(FRESH)
    except HostctlError as err:  # a test may have deleted the machine, or the snapshot
        logger.info("machine %s cannot be used again: %s", loan.machine.name, err)
        return False
    return True


def _timeout_s(config: pytest.Config) -> float:
    text = config.getoption("vm_timeout") or config.getini("vm_timeout")
    try:
        return parse_duration(text) if text else BOOT_S
    except ValueError as err:
        raise ConfigError(f"vm_timeout: {err}") from err


def _stem(name: str) -> str:
    """Make the beginning of a machine's name of a test's, or of a module's."""
    base = Path(name).stem if name.endswith(".py") else name
    return re.sub(r"[^A-Za-z0-9]+", "-", base)[:STEM].strip("-") or "session"
