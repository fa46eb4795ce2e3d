"""What schema.py declares, as `struct` runs it.

`schema.formats()` derives FORMATS; tests hold the two equal, and parse any bytes both ways.
construct itself costs 50 to 90 ms of CPU to import, which every `hostctl exec` would pay, and 15 to
50 us a frame.
"""

from __future__ import annotations

import struct
from typing import Any, Final

__all__ = ["FORMATS", "HEADER", "split"]

# Declaration → its fixed fields, and "+" where bytes of any number follow as the last field.
FORMATS: Final = {
    "HEADER": ">2s1sB16sL",
    "HELLO": ">B+",
    "EXIT": ">BBBLLL",
    "DONE": ">+",
    "ERROR": ">H+",
}

HEADER: Final = struct.Struct(FORMATS["HEADER"])
_BODIES: Final = {
    name: (struct.Struct(text.rstrip("+")), text.endswith("+")) for name, text in FORMATS.items()
}


def split(name: str, body: bytes) -> tuple[Any, ...]:
    """Return the fields of a body, as the declaration of that name has them.

    Raises:
        ValueError: it is too short or too long.
    """
    fixed, is_open = _BODIES[name]
    rest = body[fixed.size :]
    if len(body) < fixed.size or (rest and not is_open):
        raise ValueError(f"{len(body)} bytes")
    fields = fixed.unpack_from(body)
    return (*fields, rest) if is_open else fields
