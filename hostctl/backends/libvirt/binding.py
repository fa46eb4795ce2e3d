"""The library itself, made ready on first use; the only file that decides when it is loaded."""

from __future__ import annotations

import threading
from typing import Any

from ...errors import ToolMissing
from .eventloop import EventThread

__all__ = ["events", "libvirt", "version"]

INSTALL = (
    "install it with: pip install 'hostctl[libvirt]' "
    "(on Debian it needs: apt-get install libvirt-dev pkg-config gcc python3-dev), "
    "or: apt-get install python3-libvirt"
)
_lock = threading.Lock()
_loaded: tuple[Any, EventThread] | None = None


def libvirt() -> Any:
    """Return the module, with an event thread running.

    Raises:
        ToolMissing: libvirt-python is not installed.
    """
    return _load()[0]


def events() -> EventThread:
    """Return the event thread."""
    return _load()[1]


def version() -> str:
    """Return the version of the C library in the way people write it."""
    number = libvirt().getVersion()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _load() -> tuple[Any, EventThread]:
    global _loaded
    with _lock:
        if _loaded is None:
            try:
                import libvirt as module
            except ImportError as err:
                raise ToolMissing("libvirt-python", hint=INSTALL) from err
            # Or the library prints every error to our stderr, besides raising it.
            module.registerErrorHandler(lambda _context, _error: None, None)
            thread = EventThread(module)
            thread.start()
            _loaded = module, thread
        return _loaded
