"""The same API without async, for scripts: one background loop thread, and thin wrappers.

::

    with Controller() as controller:
        machine = controller.machine("web")
        machine.start()
        print(machine.exec("uname", "-a").stdout)

Names and signatures are those of the async classes; tests/contract/test_sync_mirror.py holds them
equal. Works in any thread, also inside a running loop (Jupyter). Ctrl-C cancels the call it
interrupts.
"""

from .controller import Controller
from .job import Job
from .machine import Machine
from .process import Process, Terminal

__all__ = ["Controller", "Job", "Machine", "Process", "Terminal"]
