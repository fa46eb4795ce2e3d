"""A guest's port through libvirt: a Link over a stream, the same for a local and a remote host.

Each link has a connection of its own, and one thread that alone talks to it: it reads ahead, no
further than `AHEAD`, and writes when the socket takes a piece whole. So a line that is full, in
either direction, waits without costing memory, and holds up no other line: libvirtd stops reading a
connection of which five messages wait for a guest. One thread, because two calls at once on a
connection can both miss their end in libvirt 9 (two threads then poll one socket). A libvirtd that
dies closes the socket; no callback is needed. Opening costs 2 ms where libvirt is on this host;
where it is not, it costs an ssh login, so those lines are used again (`park.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostctl_channels.errors import ChannelClosed, ChannelError, ChannelTimeout, PortHeld

from .binding import libvirt
from .line import Line, dial
from .owner import Owner

if TYPE_CHECKING:
    from hostctl_channels.interface import Buffer

    from .park import Park

__all__ = ["StreamEndpoint", "StreamLink"]

logger = logging.getLogger(__name__)

OPEN_S = 30.0  # an ssh login on a loaded host
AHEAD = 1 << 20  # read before it is asked for: some round trips of a bulk transfer
# libvirtd asks for a sign of life every 5 s, and hangs up after 30; the question waits behind the
# guest's bytes. So a line that nobody reads is read a little, up to MOST: ten minutes of a pause.
PULSE_S, MOST = 2.0, 64 << 20
PIECE_IN = 256 << 10  # libvirt's own largest piece of a stream
PIECE_OUT = 64 << 10  # fits the free part of a socket that polls writable, so none waits inside
ABORT_S = 2.0  # libvirtd does not answer while a guest does not read: then the line is cut
_OPERATION_FAILED = 9  # VIR_ERR_OPERATION_FAILED: what a second stream to one port gets


@dataclass(frozen=True, slots=True)
class StreamEndpoint:
    """One port of a domain. `attach` begins the stream: a domain's openChannel or openConsole."""

    uri: str
    uuid: str
    name: str
    attach: Callable[[Any, Any], object]
    park: Park | None = None  # of a far host: lines are kept for the next stream

    async def open(self) -> StreamLink:
        """See Endpoint."""
        loop = asyncio.get_running_loop()
        owner = Owner(f"libvirt {self.name}")
        future = owner.submit(self._begin)
        try:
            async with asyncio.timeout(OPEN_S):
                line, stream = await asyncio.wrap_future(future)
        except BaseException as err:
            # If it comes to be after all, nobody wants it.
            future.add_done_callback(_hang_up_unwanted)
            owner.close()
            if isinstance(err, TimeoutError):
                raise ChannelTimeout(f"{self.name}: {self.uri} did not answer") from err
            raise
        return StreamLink(line, stream, owner, loop, self)

    def _begin(self) -> tuple[Line, Any]:
        library = libvirt()
        try:
            if (leaving := _leaving.get(self.key)) is not None:
                leaving.wait(2 * ABORT_S)  # the stream before ours has to be off the port first
            line = dial(self.uri) if self.park is None else self.park.take()
            try:
                stream = line.connect.newStream(library.VIR_STREAM_NONBLOCK)
                self.attach(line.connect.lookupByUUIDString(self.uuid), stream)
            except BaseException:
                line.close()
                raise
        except library.libvirtError as err:
            raise self._failed(err) from err
        return line, stream

    @property
    def key(self) -> tuple[str, str, str]:
        """The port, among all."""
        return self.uri, self.uuid, self.name

    def _failed(self, err: Any) -> ChannelError:
        said = str(err)
        if err.get_error_code() == _OPERATION_FAILED and "Active" in said:
            return PortHeld(
                f"{self.name} is held by another connection to libvirt ({said.lower()})",
                hint="end it (a virsh console? another hostctl?), or take the line over by --steal",
            )
        return ChannelClosed(f"no line to {self.name} of {self.uri}: {said}")


_leaving: dict[tuple[str, str, str], threading.Event] = {}
"""Ports whose stream is being ended, but not its line."""


class StreamLink:
    """See Link. Owns its line."""

    def __init__(
        self,
        line: Line,
        stream: Any,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        endpoint: StreamEndpoint,
    ) -> None:
        self._line = line
        self._stream = stream
        self._loop = loop
        self._name = endpoint.name
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._inbox: deque[memoryview] = deque()
        self._kept = 0
        self._outbox: deque[_Parcel] = deque()
        self._end: ChannelClosed | None = None  # why nothing more comes or goes
        self._has_ended = False
        self._is_closed = False
        self._told = asyncio.Event()
        self._left = threading.Event()
        owner.submit(self._serve)
        owner.close()

    async def receive_into(self, buffer: bytearray) -> int:
        """See Link."""
        while True:
            self._told.clear()
            if size := self._take(buffer):
                return size
            self._check()
            if self._has_ended:
                return 0
            await self._told.wait()

    async def send(self, data: Buffer) -> None:
        """See Link."""
        self._check()
        view = memoryview(data).cast("B")
        if not view:
            return
        parcel = _Parcel(view, self._loop.create_future())
        with self._lock:
            if self._has_ended or self._is_closed:
                raise ChannelClosed(f"{self._name}: the line is closed")
            self._outbox.append(parcel)
        self._line.wake()
        try:
            await parcel.sent
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._outbox.remove(parcel)

    def close(self) -> None:
        """See Link."""
        if self._is_closed:
            return
        with self._lock:
            self._is_closed = True
            self._inbox.clear()
            self._kept = 0
        if self._endpoint.park is None or self._outbox:
            self._line.cut()
        else:
            _leaving[self._endpoint.key] = self._left
            self._line.wake()
        self._told.set()

    def _check(self) -> None:
        if self._is_closed:
            raise ChannelClosed(f"{self._name}: the line is closed")
        if self._end is not None:
            raise self._end

    def _take(self, buffer: bytearray) -> int:
        size = 0
        with self._lock:
            was_full = self._kept >= AHEAD
            while self._inbox and size < len(buffer):
                chunk = self._inbox[0]
                part = chunk[: len(buffer) - size]
                buffer[size : size + len(part)] = part
                size += len(part)
                if len(part) == len(chunk):
                    self._inbox.popleft()
                else:
                    self._inbox[0] = chunk[len(part) :]
            self._kept -= size
            is_full = self._kept >= AHEAD
        if was_full and not is_full:
            self._line.wake()
        return size

    # In the thread.

    def _serve(self) -> None:
        end: ChannelClosed | None = None
        try:
            while not self._is_closed and not self._has_ended:
                self._turn()
        except (libvirt().libvirtError, OSError) as err:
            end = ChannelClosed(f"{self._name}: the line broke: {err}")
            end.__cause__ = err
        with self._lock:
            self._end, self._has_ended = end, True
            unsent = [*self._outbox]
        self._tell(self._told.set)
        for parcel in unsent:
            self._tell(parcel.fail, end or ChannelClosed(f"{self._name}: the line is closed"))
        self._hang_up()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        with self._lock:
            has_room, parcel = self._kept < AHEAD, self._outbox[0] if self._outbox else None
        found = self._line.wait(
            reading=has_room, writing=parcel is not None, limit_s=None if has_room else PULSE_S
        )
        if found & (select.POLLHUP | select.POLLERR) and not found & select.POLLIN:
            self._line.apart.end()
        if found & select.POLLIN or (not found and not has_room and self._kept < MOST):
            self._line.apart.read()
        if found & select.POLLOUT and parcel is not None:
            self._send_piece(parcel)
        self._drain()  # sending reads, too
        if self._line.apart.is_gone and not self._has_ended:
            raise ConnectionResetError("libvirtd hung up")

    def _send_piece(self, parcel: _Parcel) -> None:
        sent = self._stream.send(bytes(parcel.rest[:PIECE_OUT]))
        parcel.rest = parcel.rest[max(0, sent) :]
        if not parcel.rest:
            with self._lock, contextlib.suppress(ValueError):
                self._outbox.remove(parcel)
            self._tell(parcel.succeed)

    def _drain(self) -> None:
        """Take all that libvirt has queued."""
        got = False
        while isinstance(data := self._stream.recv(PIECE_IN), bytes):
            if not data:
                self._has_ended = True
                break
            with self._lock:
                if not self._is_closed:
                    self._inbox.append(memoryview(data))
                    self._kept += len(data)
            got = True
        if got:
            self._tell(self._told.set)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(what, *arguments)

    def _hang_up(self) -> None:
        park = self._endpoint.park
        is_clean = park is not None and self._end is None and self._abort()
        # The stream first: it holds on to the connection.
        self._stream = None
        if not is_clean:
            self._line.cut()
        self._left.set()
        if _leaving.get(self._endpoint.key) is self._left:
            _leaving.pop(self._endpoint.key, None)
        if is_clean and park is not None:
            park.keep(self._line)
        else:
            self._line.close()

    def _abort(self) -> bool:
        """End the stream and nothing else; False when libvirtd does not answer, or is gone."""
        hurry = threading.Timer(ABORT_S, self._line.cut)
        hurry.daemon = True
        hurry.start()
        try:
            self._stream.abort()
        except libvirt().libvirtError:
            return False
        finally:
            hurry.cancel()
        return not self._line.apart.is_gone


class _Parcel:
    """Bytes on their way out, and who waits for them to be gone."""

    def __init__(self, data: memoryview, sent: asyncio.Future[None]) -> None:
        self.rest = data
        self.sent = sent

    def succeed(self) -> None:
        if not self.sent.done():
            self.sent.set_result(None)

    def fail(self, error: ChannelClosed) -> None:
        if not self.sent.done():
            self.sent.set_exception(error)


def _hang_up_unwanted(future: Any) -> None:
    if not future.cancelled() and future.exception() is None:
        line, _ = future.result()
        line.cut()
        line.close()
