"""Two kinds of type libraries, read through fakes of their bindings."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from hostctl.backends.virtualbox.bridge.serve import Fault
from hostctl.backends.virtualbox.bridge.typelib import ComLibrary, XpcomLibrary

IN, OUT, RETVAL = 0x80, 0x40, 0x60
STRING, NUMBER = 145, 6


def parameter(flags: int, tag: int, size_at: int = 0) -> tuple[int, tuple[int, int, int, int]]:
    return flags, (tag, size_at, size_at, 0)


# As the real one describes createMachine of 7.2: the third counts the groups in the fourth.
CREATE = (
    *(parameter(IN, STRING), parameter(IN, STRING), parameter(IN, NUMBER), parameter(IN, NUMBER)),
    parameter(IN, 148, 3),
    *(parameter(IN, STRING) for _ in range(5)),
    parameter(RETVAL, 146),
)


class XpcomInfo:
    def GetConstantCount(self) -> int:
        return 2

    def GetConstant(self, index: int) -> tuple[str, int, int]:
        return [("Null", 0, 0), ("Running", 0, 6)][index]

    def GetMethodCount(self) -> int:
        return 2

    def GetMethodInfo(self, index: int) -> tuple[object, ...]:
        return [(0, "other", (), None), (0, "createMachine", CREATE, None)][index]


class XpcomManager:
    def GetInfoForName(self, name: str) -> XpcomInfo:
        if name not in ("MachineState", "IVirtualBox"):
            raise RuntimeError("no such interface")
        return XpcomInfo()


def test_xpcom_tells_constants_and_arguments() -> None:
    library = XpcomLibrary(XpcomManager())
    assert library.constants("MachineState") == {"Null": 0, "Running": 6}
    assert library.constants("Nonesuch") == {}
    assert library.inputs("IVirtualBox", "createMachine") == 9
    with pytest.raises(Fault, match=r"has no IVirtualBox\.destroy"):
        library.inputs("IVirtualBox", "destroy")


@dataclass
class ComFunction:
    memid: int
    args: list[tuple[int, int, None]]


class ComInfo:
    """An ITypeInfo: a retval is an [out, retval], or the result itself."""

    cFuncs = 1

    def GetTypeAttr(self) -> "ComInfo":
        return self

    def GetFuncDesc(self, index: int) -> ComFunction:
        return ComFunction(7, [(0, 1, None)] * 9 + [(0, 10, None)])

    def GetNames(self, memid: int) -> list[str]:
        return ["CreateMachine", "settingsFile"]


def test_com_tells_the_same() -> None:
    def constants(name: str) -> Mapping[str, int]:
        return {"MachineState": {"Running": 6}}[name]

    library = ComLibrary(constants, lambda _name: ComInfo())
    assert library.constants("MachineState") == {"Running": 6}
    assert library.constants("Nonesuch") == {}
    assert library.inputs("IVirtualBox", "createMachine") == 9
    with pytest.raises(Fault):
        library.inputs("IVirtualBox", "destroy")
