"""Control virtual machines, and reach inside them, with no network.

::

    async with hostctl.Controller() as controller:
        machine = await controller.create(hostctl.MachineSpec("web", image="tiny"))
        await machine.start()
        print((await machine.exec("uname", "-a")).stdout)

The same without async is in `hostctl.sync`. Names are loaded when first used: importing the package
costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backends.interface import DiskSpec, MachineSpec
    from .backends.report import Snapshot
    from .controller import Controller
    from .errors import HostctlError
    from .fanout import Outcome, Results
    from .group import Group
    from .lifecycle import MachineState
    from .machine import Machine
    from .report import MachineReport
    from .state import Home

__all__ = [
    "Controller",
    "DiskSpec",
    "Group",
    "Home",
    "HostctlError",
    "Machine",
    "MachineReport",
    "MachineSpec",
    "MachineState",
    "Outcome",
    "Results",
    "Snapshot",
]

__version__ = "0.1.0"

_MODULES = {
    "Controller": "controller",
    "DiskSpec": "backends.interface",
    "Group": "group",
    "Home": "state",
    "HostctlError": "errors",
    "Machine": "machine",
    "MachineReport": "report",
    "MachineSpec": "backends.interface",
    "MachineState": "lifecycle",
    "Outcome": "fanout",
    "Results": "fanout",
    "Snapshot": "backends.report",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
