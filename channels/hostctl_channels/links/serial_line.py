"""Links over serial lines: a pty, a tty device, what pyserial reaches by a URL, a Unix socket.

`open_serial_line` chooses by the look of the target. A serial line has no flow control that could
be relied on and tells of no hang-up: whoever speaks over it bounds what is under way, and asks for
answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, cast

from ..errors import ChannelClosed, LocalProtocolError
from ..interface import Buffer
from .interface import Endpoint, Link
from .stream import UnixEndpoint, open_unix

__all__ = [
    "BAUD",
    "DescriptorLine",
    "GatheringLine",
    "SerialEndpoint",
    "SerialPort",
    "ThreadLine",
    "gathered",
    "open_serial_line",
]

BAUD: Final = 115200  # what firmware, kernels and getty use unless told otherwise
_MOST: Final = 1 << 20  # bytes kept of a far end that is faster than our reader
# How long the owner thread of a blocking port listens before it looks for something to send.
# 10 ms is the price of a round trip there, and 100 wake-ups a second.
_LISTEN_S: Final = 0.01
_PIECE: Final = 4096  # written at once by that thread, so that it listens again soon
_READ: Final = 65536
_SMALL: Final = 1024
_BUSY: Final = 32  # small pieces in a row: a stream
_NAP_S: Final = 0.0005  # of a 16550 under emulation some 150 bytes, and 250 fit
_PAUSE_S: Final = 0.004  # a kilobyte of a 16550 under emulation
_PTS: Final = "/dev/pts/"


class SerialEndpoint:
    """A serial line, as an Endpoint; `target` and `baud` are those of `open_serial_line`."""

    __slots__ = ("baud", "target")

    def __init__(self, target: str | Path, baud: int = BAUD) -> None:
        self.target = target
        self.baud = baud

    async def open(self) -> Link:
        """See Endpoint."""
        return await open_serial_line(self.target, self.baud)


def gathered(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint to read a UART by: where it is a Unix socket, by a GatheringLine."""
    return SerialEndpoint(endpoint.path) if isinstance(endpoint, UnixEndpoint) else endpoint


async def open_serial_line(target: str | Path, baud: int = BAUD) -> Link:
    """Open a line, exclusively, raw, with 8 bits and no parity.

    `target` is a Unix socket, a pty or another tty device, or a URL of pyserial, such as
    `socket://host:port` or `rfc2217://host:port`. A pty needs no pyserial and no `baud`.

    Raises:
        ChannelClosed: there is no such line, or somebody else has it.
        LocalProtocolError: pyserial is not installed, or the target makes no sense.
    """
    text = os.fspath(target)
    if "://" in text:
        return ThreadLine(await asyncio.to_thread(_open_url, text, baud))
    try:
        mode = os.stat(text).st_mode
    except OSError as err:
        raise ChannelClosed(f"no line at {text}: {err.strerror or err}") from err
    if stat.S_ISSOCK(mode):
        return GatheringLine((await open_unix(Path(text))).detach())
    if not stat.S_ISCHR(mode):
        raise LocalProtocolError(
            f"{text} is no serial line", hint="name a tty device, a pty, a Unix socket or a URL"
        )
    return await asyncio.to_thread(_open_pty if _is_pty(text) else _open_device, text, baud)


class DescriptorLine:
    """A link over a tty's descriptor, which it owns; `keeper` is closed with it."""

    def __init__(self, fd: int, keeper: Callable[[], None] | None = None) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._keeper = keeper or (lambda: os.close(fd))
        self._is_open = True
        self._waiting: set[asyncio.Future[None]] = set()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        while self._is_open:
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError as err:
                raise _broken(err) from err
        return 0

    async def send(self, data: Buffer) -> None:
        """See Link."""
        view = memoryview(data).cast("B")
        while view or not self._is_open:
            if not self._is_open:
                raise ChannelClosed("the line broke: it is closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(reading=False)
            except OSError as err:
                raise _broken(err) from err

    def close(self) -> None:
        """See Link."""
        if not self._is_open:
            return
        self._is_open = False
        for future in self._waiting:
            _wake(future)
        with contextlib.suppress(RuntimeError):  # closed without a loop: nobody can be waiting
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
        self._keeper()

    async def _ready(self, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        add = loop.add_reader if reading else loop.add_writer
        remove = loop.remove_reader if reading else loop.remove_writer
        self._waiting.add(future)
        add(self._fd, _wake, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if self._is_open:
                remove(self._fd)


class GatheringLine:
    """A link over a connected Unix socket of a UART, which it owns; a thread receives.

    QEMU writes each byte of a UART by itself: woken for each, an event loop needs a core for what
    the kernel gathers for free. Few at a time, though: of such messages a socket holds only 250.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self._is_open = True
        self._is_over = False
        self._taken_at = 0.0
        self._waiting: set[asyncio.Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="serial line", daemon=True)
        self._thread.start()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        if self._loop.time() - self._taken_at < _PAUSE_S:  # a stream: let more of it come
            await asyncio.sleep(_PAUSE_S)
        while True:
            with self._lock:
                if size := min(len(buffer), len(self._received)):
                    buffer[:size] = self._received[:size]
                    del self._received[:size]
                    self._may_go_on.set()
                    self._taken_at = self._loop.time()
                    return size
                if self._is_over or not self._is_open:
                    return 0
                self._arrived.clear()
            await self._arrived.wait()

    async def send(self, data: Buffer) -> None:
        """See Link."""
        view = memoryview(data).cast("B")
        while view or not self._is_open:
            if not self._is_open:
                raise _broken(None)
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                await self._writable()
            except OSError as err:
                raise _broken(err) from err

    def close(self) -> None:
        """See Link."""
        if not self._is_open:
            return
        for future in self._waiting:
            _wake(future)
        with contextlib.suppress(RuntimeError):  # closed without a loop: nobody can be waiting
            asyncio.get_running_loop().remove_writer(self._socket)
        with self._lock:
            self._is_open = False
            if self._is_over:
                self._socket.close()
            else:  # ends the thread, which closes
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._may_go_on.set()
        self._arrived.set()

    async def _writable(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        self._loop.add_writer(self._socket, _wake, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if self._is_open:
                self._loop.remove_writer(self._socket)

    # In the thread

    def _run(self) -> None:
        small = 0  # pieces in a row
        try:
            while self._is_open and self._may_go_on.wait():
                if not (data := self._next(nap=small >= _BUSY)):
                    break
                small = small + 1 if len(data) < _SMALL else 0
                self._keep(data)
        except OSError:
            pass  # an end like any other
        finally:
            with self._lock:
                self._is_over = True
                if not self._is_open:
                    self._socket.close()
            with contextlib.suppress(RuntimeError):  # the loop is over
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _next(self, *, nap: bool) -> bytes:
        if nap:  # whoever waits is woken by each byte: so do not
            time.sleep(_NAP_S)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(_READ, socket.MSG_DONTWAIT)
        return self._socket.recv(_READ)

    def _keep(self, data: bytes) -> None:
        with self._lock:
            is_first = not self._received
            self._received += data
            if len(self._received) > _MOST:
                self._may_go_on.clear()
        if is_first:
            self._loop.call_soon_threadsafe(self._arrived.set)


class SerialPort(Protocol):
    """What a ThreadLine needs of pyserial. All of it may block, `read` no longer than its
    timeout.
    """

    def read(self, size: int = 1, /) -> bytes:
        """Return at least one byte, or none after the timeout."""

    def write(self, data: bytes, /) -> int | None:
        """Send all of it."""

    def close(self) -> None:
        """Close it."""


class ThreadLine:
    """A link over a port that blocks, which one thread owns from here on."""

    def __init__(self, port: SerialPort) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._received: deque[bytes] = deque()
        self._received_bytes = 0
        self._sending: deque[tuple[memoryview, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._is_open = True
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="serial line", daemon=True)
        self._thread.start()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        while True:
            with self._lock:
                if self._received:
                    return self._take(buffer)
                if self._error:
                    raise _broken(self._error) from self._error
                if not self._is_open:
                    return 0
                self._arrived.clear()
            await self._arrived.wait()

    async def send(self, data: Buffer) -> None:
        """See Link."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            if self._error or not self._is_open:
                raise _broken(self._error) from self._error
            self._sending.append((memoryview(bytes(data)), future))
        try:
            await future
        finally:
            with self._lock:  # after cancellation the rest is not sent
                rest = [entry for entry in self._sending if entry[1] is not future]
                self._sending = deque(rest)

    def close(self) -> None:
        """See Link."""
        with self._lock:
            self._is_open = False
        self._arrived.set()
        self._give_up()

    def _take(self, buffer: bytearray) -> int:
        first = self._received.popleft()
        size = min(len(first), len(buffer))
        buffer[:size] = first[:size]
        if size < len(first):
            self._received.appendleft(first[size:])
        self._received_bytes -= size
        return size

    # In the thread

    def _run(self) -> None:
        try:
            while self._is_open:
                self._listen()
                self._speak()
        except Exception as err:  # pyserial raises much: SerialException, OSError, TypeError
            self._error = err
        finally:
            with contextlib.suppress(Exception):
                self._port.close()
            with contextlib.suppress(RuntimeError):  # the loop is over
                self._loop.call_soon_threadsafe(self._arrived.set)
                self._loop.call_soon_threadsafe(self._give_up)

    def _listen(self) -> None:
        if self._received_bytes > _MOST:
            threading.Event().wait(_LISTEN_S)
            return
        if data := self._port.read(_PIECE):
            with self._lock:
                self._received.append(data)
                self._received_bytes += len(data)
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _speak(self) -> None:
        with self._lock:
            if not self._sending:
                return
            view, future = self._sending.popleft()
            piece, rest = bytes(view[:_PIECE]), view[_PIECE:]
            if rest:
                self._sending.appendleft((rest, future))
        if piece:
            self._port.write(piece)
        if not rest:
            self._loop.call_soon_threadsafe(_wake, future)

    def _give_up(self) -> None:
        with self._lock:
            left = [future for _, future in self._sending]
            self._sending.clear()
        for future in left:
            if not future.done():
                future.set_exception(_broken(self._error))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _broken(err: Exception | None) -> ChannelClosed:
    return ChannelClosed(f"the line broke: {err or 'it is closed'}")


def _is_pty(path: str) -> bool:
    return os.path.realpath(path).startswith(_PTS)


def _open_pty(path: str, baud: int) -> DescriptorLine:
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as pyserial does; TIOCEXCL spares root
        tty.setraw(fd)
    except (OSError, termios.error) as err:
        if fd >= 0:
            os.close(fd)
        raise _no_line(path, err) from err
    return DescriptorLine(fd)


def _open_device(path: str, baud: int) -> DescriptorLine:
    serial = _pyserial()
    try:
        port = serial.Serial(path, baud, timeout=0, exclusive=True)
        _block_on_nothing(port.fileno())
    except (OSError, ValueError, termios.error) as err:  # SerialException is an OSError
        raise _no_line(path, err) from err
    return DescriptorLine(port.fileno(), port.close)


def _block_on_nothing(fd: int) -> None:
    """Make an empty line look empty: pyserial's VMIN of 0 makes it look ended."""
    words = termios.tcgetattr(fd)
    words[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, words)


def _open_url(url: str, baud: int) -> SerialPort:
    serial = _pyserial()
    try:
        return cast(SerialPort, serial.serial_for_url(url, baudrate=baud, timeout=_LISTEN_S))
    except (OSError, ValueError) as err:
        raise _no_line(url, err) from err


def _pyserial() -> ModuleType:
    try:
        import serial
    except ImportError as err:
        raise LocalProtocolError(
            "tty devices and URLs need pyserial, which is not installed",
            hint="pip install 'hostctl[serial]'",
        ) from err
    return serial


def _no_line(target: str, err: Exception) -> ChannelClosed:
    busy = isinstance(err, BlockingIOError) or "Errno 11" in str(err)
    hint = "somebody else has it open; see who with: fuser -v " + target if busy else None
    return ChannelClosed(f"no line at {target}: {err}", hint=hint)
