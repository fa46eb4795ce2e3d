"""What the installed VirtualBox's own type library says: constants, and the parameters of methods.

Not what its version number makes one hope: the bindings read the same library for every call.
"""

from __future__ import annotations

from typing import Any, Mapping, Protocol

from .serve import Fault

__all__ = ["ComLibrary", "TypeLibrary", "XpcomLibrary", "of"]

# Parameters in XPCOM's type library (xpt_struct.h) and in COM's (oaidl.h).
XPT_IN = 0x80
XPT_ARRAY = 20  # the type's tag, under flags
XPT_TAG_MASK = 0x1F
COM_IN = 1
COM_RETVAL = 8


class TypeLibrary(Protocol):
    """Answers about interfaces, by their names as VirtualBox's documentation has them."""

    def constants(self, enumeration: str) -> Mapping[str, int]:
        """Return the members of an enumeration; {} if there is none of that name."""

    def inputs(self, interface: str, method: str) -> int:
        """Return how many arguments a method takes.

        Raises a `Fault` of kind "unknown" if there is no such method.
        """


class XpcomLibrary:
    """Mozilla's XPCOM, on all hosts but Windows."""

    def __init__(self, manager: Any) -> None:
        """Take XPCOM's nsIInterfaceInfoManager."""
        self._manager = manager

    def constants(self, enumeration: str) -> Mapping[str, int]:
        """See TypeLibrary."""
        try:
            info = self._manager.GetInfoForName(enumeration)
        except Exception:  # XPCOM's own kinds of error
            return {}
        found = (info.GetConstant(index) for index in range(info.GetConstantCount()))
        return {name: int(value) for name, _kind, value in found}

    def inputs(self, interface: str, method: str) -> int:
        """See TypeLibrary."""
        info = self._manager.GetInfoForName(interface)
        for index in range(info.GetMethodCount()):
            _flags, name, params, _result = info.GetMethodInfo(index)
            if name == method:
                return _xpcom_inputs(params)
        raise _lacks(interface, method)


class ComLibrary:
    """Microsoft's COM. `find` returns the ITypeInfo of an interface."""

    def __init__(self, constants: Any, find: Any) -> None:
        self._constants = constants
        self._find = find

    def constants(self, enumeration: str) -> Mapping[str, int]:
        """See TypeLibrary."""
        try:
            return {key: int(value) for key, value in self._constants(enumeration).items()}
        except Exception:
            return {}

    def inputs(self, interface: str, method: str) -> int:
        """See TypeLibrary."""
        info = self._find(interface)
        for index in range(info.GetTypeAttr().cFuncs):
            described = info.GetFuncDesc(index)
            if info.GetNames(described.memid)[0].lower() == method.lower():
                flags = [argument[1] for argument in described.args]
                return sum(1 for flag in flags if flag & COM_IN and not flag & COM_RETVAL)
        raise _lacks(interface, method)


def of(manager: Any) -> TypeLibrary:
    """Return the type library behind a vboxapi manager."""
    try:
        from xpcom import _xpcom
    except ImportError:
        return ComLibrary(manager.constants.all_values, _com_interface)
    return XpcomLibrary(_xpcom.XPTI_GetInterfaceInfoManager())


def _xpcom_inputs(params: Any) -> int:
    # An array's size is a parameter of its own there, which the bindings fill in.
    inputs = [(kind, index) for index, (flags, kind) in enumerate(params) if flags & XPT_IN]
    sizes = {kind[1] for kind, _ in inputs if kind[0] & XPT_TAG_MASK == XPT_ARRAY}
    return sum(1 for _, index in inputs if index not in sizes)


def _com_interface(name: str) -> Any:
    import pythoncom
    from win32com.client import gencache

    module = gencache.GetModuleForProgID("VirtualBox.VirtualBox")
    library = pythoncom.LoadRegTypeLib(module.CLSID, module.MajorVersion, module.MinorVersion, 0)
    for index in range(library.GetTypeInfoCount()):
        if library.GetDocumentation(index)[0] == name:
            return library.GetTypeInfo(index)
    raise _lacks(name, "")


def _lacks(interface: str, method: str) -> Fault:
    return Fault("unknown", f"this VirtualBox has no {interface}.{method}")
