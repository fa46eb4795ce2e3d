"""guestside/tree.sh, run over a channel: its verbs, its answers, its errors.

A tree goes in as files that are put and unpacked, a few MiB at a time. It comes out through a
command's output, or where the channel has no live streams, as a file that is got.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final, TypeAlias, cast

from hostctl_channels.errors import HostctlError, Refused, RemoteProtocolError, TransferFailed
from hostctl_channels.interface import (
    STDOUT,
    Capability,
    Channel,
    Command,
    Process,
    PutOptions,
    Result,
)
from hostctl_channels.transfer import checked
from hostctl_guestside import tree_script

from .packing import Archive

__all__ = ["Fact", "NoTar", "Remote", "Take"]

Take: TypeAlias = Callable[[bytes], None]
"""Called with each piece of a stream."""

MAX_LIST: Final = 64 << 20  # a line for each of half a million files
_ABANDON_S: Final = 20.0
MAX_TALK: Final = 64 * 1024  # of what tools say
_ERRNO: Final = range(101, 128)  # the script's status for an errno
_NO_TAR, _NO_TOOL = 99, 98
_STAGE: Final = b".hostctl-tree."  # of another transfer, or a killed one
_FACT: Final = re.compile(rb"([0-9a-f]{1,8}) (-?\d{1,12}) (\d{1,19}) \.(?:/(.{0,4095}))?")
_SUM: Final = re.compile(rb"(\\?)([0-9a-f]{64})  \./(.{1,4095})")
_KINDS: Final = {0o040000: "d", 0o100000: "f", 0o120000: "l"}


class Fact:
    """A thing in a guest's folder, or in one of this host, as two sides compare it."""

    __slots__ = ("kind", "mode", "mtime_s", "size_bytes")

    def __init__(self, kind: str, mode: int, mtime_s: int, size_bytes: int) -> None:
        self.kind = kind  # "d", "f", "l", or "o" for others
        self.mode = mode
        self.mtime_s = mtime_s
        self.size_bytes = size_bytes

    @classmethod
    def of(cls, st_mode: int, mtime_s: int, size_bytes: int) -> Fact:
        """Make one of a raw st_mode."""
        return cls(_KINDS.get(st_mode & 0o170000, "o"), st_mode & 0o7777, mtime_s, size_bytes)


class NoTar(Refused):
    """The guest has no tar. Raised inside this package only, where the way without it begins."""


class Remote:
    """The guest's side of a tree. Paths are the guest's, as bytes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def ask(
        self, verb: str, *words: bytes | str, input: bytes | None = None, max_bytes: int = MAX_TALK
    ) -> bytes:
        """Run a verb to its end and return what it printed.

        Raises:
            TransferFailed: with the guest's errno. Refused: it lacks a tool.
        """
        command = _command(verb, *words)
        done = await self._channel.exec(command, input=input, max_output_bytes=max_bytes)
        return self._settled(done).stdout

    async def kind(self, path: bytes) -> str:
        """Return "d", "f", or "-" for what is not there."""
        return (await self.ask("kind", checked(path))).strip().decode("ascii", "replace")

    async def glob(self, pattern: bytes) -> tuple[bytes, ...]:
        """Return what a pattern of the shell matches, in its order."""
        text = await self.ask("glob", pattern, max_bytes=MAX_LIST)
        return tuple(path for path in text.split(b"\0") if path)

    async def size_bytes(self, path: bytes) -> int | None:
        """Return about how much a folder holds, or None; a guess, for progress only."""
        with contextlib.suppress(TransferFailed, Refused):
            text = (await self.ask("size", checked(path))).split()
            if text and text[0].isdigit() and len(text[0]) < 16:
                return int(text[0]) * 1024
        return None

    async def facts(self, path: bytes) -> dict[bytes, Fact]:
        """Return all in a folder, by path; the folder itself is the empty path."""
        text = await self.ask("list", checked(path), max_bytes=MAX_LIST)
        found = {}
        for line in text.splitlines():
            match = _FACT.fullmatch(line)
            if match is None:
                raise RemoteProtocolError(f"not a line about a file: {line[:100]!r}")
            mode, mtime, size, name = match.groups()
            if not (name or b"").startswith(_STAGE):
                found[name or b""] = Fact.of(int(mode, 16), int(mtime), int(size))
        return found

    async def sums(self, path: bytes) -> dict[bytes, bytes]:
        """Return the SHA-256 of every file in a folder, in hex, by path."""
        text = await self.ask("sums", checked(path), max_bytes=2 * MAX_LIST)
        found = {}
        for line in text.splitlines():
            match = _SUM.fullmatch(line)
            if match is None:
                raise RemoteProtocolError(f"not a line about a digest: {line[:100]!r}")
            escaped, digest, name = match.groups()
            found[name.replace(b"\\\\", b"\\") if escaped else name] = digest
        return found

    # --- streams ------------------------------------------------------------------------------

    async def stage(self, target: bytes, how: str, *, tar: bool = True) -> bytes:
        """Begin a tree; return the folder in which it is put together.

        `how`: the target must not be there (""), is replaced ("replace"), or changed by the plan
        ("into").

        Raises:
            NoTar: with `tar`, there is none. Nothing was begun.
        """
        name = f"x{secrets.token_hex(6)}"
        stage = await self.ask("stage", checked(target), how, name, _flag(tar))
        if b"\n" in stage or not stage.endswith(b".hostctl-tree." + name.encode()):
            raise RemoteProtocolError(f"not a folder: {stage[:100]!r}")
        return stage

    async def land(
        self,
        target: bytes,
        archives: Iterable[Archive],
        *,
        how: str = "",
        partial: bool = False,
        owners: bool = False,
        moved: Callable[[int], None] | None = None,
    ) -> None:
        """Carry the archives of `packing` in, to be unpacked one by one, and run their plan."""
        stage = await self.stage(target, how)
        try:
            ahead: Archive | None = None
            for archive in archives:
                if ahead:
                    await self.ask("unpack", stage, _flag(owners))
                await self._put(stage + b"/tar", archive, moved)
                ahead = archive
        except BaseException:
            await self.abandon(target, stage, partial=partial)
            raise
        await self.ask("settle", checked(target), _flag(partial), stage, _flag(owners))

    async def abandon(self, target: bytes, stage: bytes, *, partial: bool) -> None:
        """Give a tree up; best effort, an error is on its way already."""
        with contextlib.suppress(HostctlError, TimeoutError):
            async with asyncio.timeout(_ABANDON_S):
                await self.ask("abandon", checked(target), _flag(partial), stage)

    async def _put(
        self, path: bytes, archive: Archive, moved: Callable[[int], None] | None
    ) -> None:
        done = 0

        def progress(size: int) -> None:
            nonlocal done
            now = min(size, len(archive.data)) * archive.content_bytes // len(archive.data)
            if moved:
                moved(now - done)
            done = now

        await self._channel.put(
            io.BytesIO(archive.data), len(archive.data), path, PutOptions(), progress
        )

    async def packed(self, path: bytes, names: Iterable[bytes], take: Take) -> None:
        """Hand a tar stream of a folder to `take`, without what has one of these names."""
        await self._drink(("pack", checked(path), *names), None, take)

    async def picked(self, path: bytes, wishes: bytes, take: Take) -> None:
        """The same for some files of it: `wishes` are lines of the script."""
        await self._drink(("pick", checked(path)), wishes, take)

    async def links(self, path: bytes) -> bytes:
        """Return a tar stream of all symbolic links in a folder."""
        return await self.ask("links", checked(path), max_bytes=MAX_LIST)

    async def _drink(self, words: tuple[bytes | str, ...], input: bytes | None, take: Take) -> None:
        if Capability.STREAMS in self._channel.capabilities:
            await self._read(_command(*words), input, take)
            return
        tar = b"/tmp/.hostctl-tree.%s.tar" % secrets.token_hex(6).encode()
        try:
            await self.ask("save", tar, *words, input=input)
            with tempfile.TemporaryFile() as spool:
                await self._channel.get(tar, cast(BinaryIO, spool))
                spool.seek(0)
                while chunk := spool.read(1 << 18):
                    take(chunk)
        finally:
            with contextlib.suppress(Exception):
                await self.ask("drop", tar)

    async def _read(self, command: Command, input: bytes | None, take: Take) -> None:
        """Hand on all that a command prints; then see how it ended."""
        talk = bytearray()
        async with self._channel.spawn(command, stdin=input is not None) as process:
            feeding = asyncio.create_task(_write(process, (input or b"",)))
            try:
                while (piece := await process.read()) is not None:
                    if piece[0] == STDOUT:
                        take(piece[1])
                    else:
                        talk += piece[1][: MAX_TALK - len(talk)]
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            status = await process.wait()
        self._settled(Result(command, status, b"", bytes(talk), 0.0))

    def _settled(self, done: Result) -> Result:
        """Return an answer, or raise what its status means."""
        if done.exit.ok:
            return done
        line = done.stderr.strip().rpartition(b"\n")[2][:300].decode("utf-8", "backslashreplace")
        said = "".join(char if char.isprintable() else "?" for char in line)
        code = done.exit.code or 0
        if code == _NO_TAR:
            raise NoTar(said, "tar")
        if code == _NO_TOOL:
            raise Refused(said or "this guest lacks a tool", "tree")
        errno = code - 100 if code in _ERRNO else 5
        hint = "--replace it, or sync into it" if errno == 17 else None
        said = said or f"the guest's shell failed with a tree: {done.exit}"
        raise TransferFailed(errno, said, hint=hint)


def _command(verb: bytes | str, *words: bytes | str) -> Command:
    return Command.of("sh", "-c", 'eval "$1"', "tree", tree_script(), verb, *words)


def _flag(value: bool) -> str:
    return "1" if value else ""


async def _write(process: Process, stream: Iterable[bytes]) -> None:
    for chunk in stream:
        await process.write(chunk)
    await process.close_stdin()
