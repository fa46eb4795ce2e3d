"""pyvbox on a VirtualBox newer than it: what 7.x changed, put right in one place.

pyvbox 2.1.1 was generated from the API of 6.1.16 and is not maintained. Its enumerations are
renumbered by what the live type library says, and calls whose parameters changed are made with as
many as the type library tells. What pyvbox gets right is used as it is.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Mapping

from . import typelib
from .serve import Fault

__all__ = [
    "KNOWN",
    "Api",
    "create_machine_arguments",
    "explain",
    "first",
    "load",
    "process_create_arguments",
    "renumber",
    "series",
    "settle",
]

KNOWN = ("6.1", "7.0", "7.1", "7.2")
Live = Callable[[str], Mapping[str, int]]


class Api:
    """pyvbox, made to fit the VirtualBox that is there."""

    def __init__(
        self, module: Any, bindings: Any, types: typelib.TypeLibrary, moved: dict[str, Any]
    ) -> None:
        self.module = module
        self.bindings = bindings
        self.manager = module.Manager().manager
        self.types = types
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
    check_known(manager.getVirtualBox().version)
    from virtualbox import library, library_base

    types = typelib.of(manager)
    moved = renumber(library, library_base.Enum, types.constants)
    _mend(library_base)
    return Api(module, library, types, moved)


def check_known(version: str) -> None:
    """Refuse, by a `Fault`, a VirtualBox whose states and calls we have not seen."""
    if series(version) not in KNOWN:
        known = ", ".join(KNOWN)
        raise Fault("unknown", f"VirtualBox {version} is not known here, only {known}")


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


# Calls


def create_machine_arguments(
    inputs: int, x86: int | None, settings: str, name: str, os_type: str, flags: str
) -> list[Any]:
    """Return the arguments of IVirtualBox.createMachine, which takes `inputs` of them."""
    old: list[Any] = [settings, name, [], os_type, flags]
    if inputs == 5:  # 6.1
        return old
    if inputs == 8:  # 7.0: encryption
        return [*old, "", "", ""]
    if inputs == 9 and x86 is not None:  # 7.1: the platform's architecture
        return [settings, name, x86, [], os_type, flags, "", "", ""]
    raise Fault("unknown", f"createMachine takes {inputs} arguments, which is not known here")


def process_create_arguments(
    inputs: int, exe: str, argv: list[str], cwd: str, env: list[str], flags: list[int], limit: int
) -> list[Any]:
    """Return the arguments of IGuestSession.processCreate, which takes `inputs` of them.

    A `Fault` of kind "unsupported" where it cannot be told where to run, before 7.1.
    """
    if inputs == 6:  # 7.1
        return [exe, argv, cwd, env, flags, limit]
    if inputs == 5 and not cwd:
        return [exe, argv, env, flags, limit]
    if inputs == 5:
        raise Fault("unsupported", "VirtualBox before 7.1 runs commands in no other folder")
    raise Fault("unknown", f"processCreate takes {inputs} arguments, which is not known here")


def create_machine(api: Api, settings: str, name: str, os_type: str, flags: str) -> Any:
    """Create a machine, which is not registered yet."""
    inputs = api.types.inputs("IVirtualBox", "createMachine")
    x86 = api.types.constants("PlatformArchitecture").get("x86")
    arguments = create_machine_arguments(inputs, x86, settings, name, os_type, flags)
    return api.bindings.IMachine(api.virtualbox._call("createMachine", in_p=arguments))


def first(thing: Any, *paths: str) -> Any:
    """Return the raw object at the first dotted path that this VirtualBox has, None if at none.

    Settings moved into objects of their own: the chipset of a machine is its platform's since 7.1.
    """
    for path in paths:
        found = getattr(thing, "_i", thing)
        for name in path.split(".") if path else ():
            found = getattr(found, name, None)
            if found is None:
                break
        if found is not None:
            return found
    return None


def settle(thing: Any, value: Any, *paths: str) -> bool:
    """Set the first of some dotted attributes that there is; False if there is none."""
    for path in paths:
        owner, _, name = path.rpartition(".")
        found = first(thing, owner)
        if found is not None and hasattr(found, name):
            setattr(found, name, value)
            return True
    return False


# Enumerations


def renumber(library: Any, base: Any, live: Live) -> dict[str, Any]:
    """Give pyvbox's enumerations the numbers of the running VirtualBox.

    Return what differed: by enumeration, the names that moved and those that are gone.
    """
    report = {}
    for name, kind in list(vars(library).items()):
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            values = live(name)
            change = _renumber_one(kind, values) if values else None
            if change:
                report[name] = change
    return report


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
        label: [number, live[label]]
        for label, number in was.items()
        if label in live and live[label] != number
    }
    gone = [label for label in was if label not in live]
    return {"moved": moved, "gone": gone} if moved or gone else None


def _attribute(label: str) -> str:
    from virtualbox import library_base

    return str(library_base.pythonic_name(label))


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


def _mend(library_base: Any) -> None:
    # Python 3 ignores __nonzero__: a null pointer looked true, and pyvbox's event thread handed a
    # null event to VBoxSVC, which crashes of it and takes all machines along.
    base = library_base.Interface
    base.__bool__ = base.__nonzero__
