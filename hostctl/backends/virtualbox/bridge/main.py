"""The bridge's first moments: private pipes, VirtualBox's API, the greeting, the loop."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from typing import Any

from . import compat, guest, machines, snapshots, views
from .box import Box
from .serve import Fault, Operation, Server
from .wire import GREETING, Answer, Failure, encode

__all__ = ["OPERATIONS", "main"]

OPERATIONS: dict[str, Operation] = {
    **machines.OPERATIONS,
    **snapshots.OPERATIONS,
    **views.OPERATIONS,
    **guest.OPERATIONS,
}


def main(paths: list[str]) -> None:
    """Serve on our standard input and output. `paths`: where pyvbox may be found."""
    source, sink = _private_pipes()
    try:
        box = Box(compat.load(paths))
    except Exception as error:
        fault = error if isinstance(error, Fault) else compat.explain(error)
        if fault is None:
            raise
        os.write(sink, encode(Failure(GREETING, fault.kind, str(fault), fault.code)))
        return
    gc.collect()
    gc.freeze()  # pyvbox is large and here to stay: later collections need not look at it
    server = Server(source, sink, OPERATIONS, box.explain)
    server.send(Answer(GREETING, box.greeting()))
    try:
        server.serve(box)
    finally:
        box.close()
        gc.collect()


def _private_pipes() -> Any:
    """Keep the pipes to hostctl for ourselves.

    Libraries print, and VBoxSVC, which our first call may start, would hold them open after us.
    """
    source, sink, errors = os.dup(0), os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.stderr = os.fdopen(errors, "w", buffering=1)
    faulthandler.enable(sys.stderr)
    return source, sink
