"""What moving files whole takes of an agent: it runs programs, and opens files."""

from __future__ import annotations

from typing import Protocol

from ..interface import Buffer
from .agent import Status

__all__ = ["Hands", "Limits"]


class Limits(Protocol):
    """How much one request carries, in base64 and with its envelope."""

    @property
    def max_request_bytes(self) -> int: ...
    @property
    def max_reply_bytes(self) -> int: ...


class Hands(Protocol):
    """See agent.Agent, whose methods these are."""

    @property
    def exchange(self) -> Limits: ...

    def carries(self, text: bytes, /) -> bool: ...
    async def start(self, path: bytes, words: tuple[bytes, ...], data: Buffer | None, /) -> int: ...
    async def status(self, pid: int, /) -> Status | None: ...
    async def open(self, path: bytes, mode: str, /) -> int: ...
    async def read(self, handle: int, size_bytes: int, path: bytes, /) -> tuple[bytes, bool]: ...
    async def write(self, handle: int, data: memoryview, path: bytes, /) -> int: ...
    async def shut(self, handle: int, path: bytes, /) -> None: ...
