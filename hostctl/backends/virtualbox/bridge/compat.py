"""pyvbox on a VirtualBox newer than it: what 7.x changed, put right in one place.

pyvbox 2.1.1 was generated from the API of 6.1.16 and is not maintained. Enumerations are renumbered
from what the running VirtualBox's own type library says, calls whose parameters changed are made
with as many as the type library tells. What pyvbox gets right is used as it is.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Mapping

from .serve import Fault

__all__ = ["KNOWN", "Api", "explain", "load", "renumber", "series"]

KNOWN = ("6.1", "7.0", "7.1", "7.2")
Live = Callable[[str], Mapping[str, int]]


class Api:
    """pyvbox, made to fit the VirtualBox that is there."""

    def __init__(self, module: Any, moved: dict[str, Any]) -> None:
        self.module = module
        self.library = module.library
        self.manager = module.Manager().manager
        self.virtualbox = module.VirtualBox()
        self.moved = moved
        self.python = f"{sys.version.split()[0]} at {sys.executable}"

    def close(self) -> None:
        """Let go of VirtualBox; without this XPCOM complains while Python ends."""
        manager = self.manager
        del self.manager, self.virtualbox
        manager.deinit()


def load(paths: list[str]) -> Api:
    """Import pyvbox, connect, and adapt it.

    Raises a `Fault` of kind "missing" where a part of that is not installed, "unknown" for a
    VirtualBox that we were not made for.
    """
    try:
        import vboxapi  # noqa: F401 pyvbox imports it, and searches where it should not
    except ImportError as err:
        raise Fault("missing", f"vboxapi: {err}") from err
    module = _pyvbox(paths)
    manager = module.Manager().manager
    version = manager.getVirtualBox().version
    if series(version) not in KNOWN:
        known = ", ".join(KNOWN)
        raise Fault("unknown", f"VirtualBox {version} is not known here, only {known}")
    moved = renumber(module.library, module.library_base.Enum, manager.constants.all_values)
    _mend(module)
    return Api(module, moved)


def series(version: str) -> str:
    """Return `7.2` of `7.2.22_Debian`."""
    return ".".join(version.split(".")[:2])


def explain(error: BaseException) -> Fault | None:
    """Return our word for an error of VirtualBox's, None for any other."""
    code = getattr(error, "value", None)  # pyvbox
    if code is None:
        code = getattr(error, "errno", getattr(error, "hresult", None))  # XPCOM, COM
    if not isinstance(code, int) or isinstance(error, OSError):
        return None
    text = getattr(error, "msg", None) or str(error)
    return Fault("vbox", str(text), code & 0xFFFFFFFF)


def renumber(library: Any, base: Any, live: Live) -> dict[str, Any]:
    """Give pyvbox's enumerations the numbers of the running VirtualBox.

    Return what differed: by enumeration, the names that moved and those that are gone.
    """
    report = {}
    for name, kind in list(vars(library).items()):
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            values = _values(live, name)
            if values and (change := _renumber_one(kind, values)):
                report[name] = change
    return report


def _values(live: Live, name: str) -> dict[str, int]:
    try:
        return {label: int(value) for label, value in dict(live(name)).items()}
    except Exception:  # XPCOM knows no such enumeration any more: KeyError, AttributeError, its own
        return {}


def _renumber_one(kind: Any, live: Mapping[str, int]) -> dict[str, Any] | None:
    was = {label: value for label, value, _ in kind._enums}
    docs = {label: text for label, _, text in kind._enums}
    for label in was:  # instances are shared as defaults of parameters: they keep their identity
        if label in live:
            getattr(kind, _attribute(label))._value = live[label]
    kind._lookup_label, kind._lookup_doc = {}, {}
    for label, value in live.items():  # aliases such as FirstOnline come after the real names
        kind._lookup_label.setdefault(value, label)
        kind._lookup_doc.setdefault(value, docs.get(label, ""))
    for label, value in live.items():
        if label not in was:
            setattr(kind, _attribute(label), kind(value))
    kind._enums = [(label, value, docs.get(label, "")) for label, value in live.items()]
    moved = {
        label: [was[label], live[label]]
        for label in was
        if live.get(label) not in (None, was[label])
    }
    gone = [label for label in was if label not in live]
    return {"moved": moved, "gone": gone} if moved or gone else None


def _attribute(label: str) -> str:
    from virtualbox.library_base import pythonic_name

    return str(pythonic_name(label))


def _pyvbox(paths: list[str]) -> Any:
    try:
        import virtualbox
    except ImportError:
        sys.path.extend(path for path in paths if path)
        try:
            import virtualbox
        except ImportError as err:
            raise Fault("missing", f"pyvbox: {err}") from err
    return virtualbox


def _mend(module: Any) -> None:
    # Python 3 ignores __nonzero__: a null pointer looked true, and pyvbox's event thread handed a
    # null event to VBoxSVC, which crashes of it and takes all machines along.
    base = module.library_base.Interface
    base.__bool__ = base.__nonzero__
