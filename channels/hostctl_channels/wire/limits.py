"""The protocol's version and limits, each with its reason; docs/PROTOCOL.md section 1."""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAGIC",
    "MAX_BODY",
    "MAX_LINE",
    "MAX_STDIN",
    "MAX_WORDS",
    "NONCE_SIZE",
    "NO_NONCE",
    "PING_SIZE",
    "VERSION",
]

VERSION: Final = 1

# Bytes of words in a line: a shell reads a byte per system call, 12-15 us each under emulation.
MAX_LINE: Final = 1024
# Bytes of words in a body: above the 128 KiB Linux takes for one argument, and bounded.
MAX_WORDS: Final = 1 << 20
# One frame of standard input: each costs a fork (10 ms under emulation), and is held whole.
MAX_STDIN: Final = 1 << 20
# What feeds the random pool, held whole too; the pool's own state is 32 bytes.
# Guest → host, by kind: what the agent can say, and a flood cannot make us keep more
MAX_BODY: Final = {
    b"R": 0,
    b"H": 1024,
    b"P": 0,
    b"S": 0,
    b"B": 0,
    b"X": 15,
    b"D": 512,
    b"E": 1024,
}
MAGIC: Final = b"\x9dH"  # begins no UTF-8 text and no shell output
# Hex digits, 64 random bits: what no file and no earlier request contains by chance
NONCE_SIZE: Final = 16
NO_NONCE: Final = b"0" * NONCE_SIZE
# A ping has the last digits only: each byte costs the shell a system call, and no body ends with it
PING_SIZE: Final = 4
