"""The bridge's loop: requests in, one after the other, all in one thread; answers out.

An operation is a function `op(box, **args)`; a request's body arrives as the argument `body`. It
returns a value for JSON, or a `Reply` with bytes. One that waits is a generator instead: it yields

* a number: "go on with me in that many seconds"; meanwhile others are served;
* a `Reply`: a piece of the result, sent at once.

When it is cancelled it is closed where it waits: its `finally` gives back what it holds.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
import time
import traceback
import types
from typing import Any, Callable, Generator, Mapping, NamedTuple

from .wire import Answer, Cancel, Decoder, Failure, Message, Request, WireError, encode

__all__ = ["Fault", "Operation", "Reply", "Server"]

READ_BYTES = 1 << 16
# After hostctl is gone: a call that hangs in VirtualBox must not keep this process for ever.
ORPHAN_S = 5.0

Operation = Callable[..., Any]


class Reply(NamedTuple):
    """A value with bytes."""

    value: Any = None
    body: bytes | None = None


class Fault(Exception):
    """What an operation refuses. `kind` is one of hostctl's words for it, see its `faults.py`."""

    def __init__(self, kind: str, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.code = code


class _Job(NamedTuple):
    steps: Generator[Any, None, Any]
    due: float


class Server:
    """Serves one client, on two file descriptors."""

    def __init__(
        self,
        source: int,
        sink: int,
        operations: Mapping[str, Operation],
        explain: Callable[[BaseException], Fault | None] = lambda _error: None,
    ) -> None:
        self._sink = sink
        self._operations = operations
        self._explain = explain
        self._jobs: dict[int, _Job] = {}
        self._is_untidy = False
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; when nobody listens any more, this process ends."""
        data = memoryview(encode(message))
        try:
            while data:
                data = data[os.write(self._sink, data) :]
        except OSError:
            os._exit(0)

    def serve(self, box: Any) -> None:
        """Serve until the client hangs up; or until a `Fault` of kind "died" ends it."""
        try:
            while True:
                self._tidy()
                message = self._receive()
                if message is None:
                    return
                self._take(box, message)
                del message
                self._work()
        finally:
            for job in self._jobs.values():
                job.steps.close()

    # In a thread of its own: a blocking read is the one way that works with pipes everywhere.

    def _read(self, source: int) -> None:
        decoder = Decoder()
        try:
            while True:
                data = os.read(source, READ_BYTES)
                if not data:
                    break
                for message in decoder.feed(data):
                    self._inbox.put(message)
        except (OSError, WireError):
            traceback.print_exc()
        self._inbox.put(None)
        time.sleep(ORPHAN_S)
        os._exit(1)

    # In the one thread that owns VirtualBox's API.

    def _receive(self) -> Any:
        """Return the next message, None at the end of the conversation; work while none comes."""
        while True:
            try:
                return self._inbox.get(timeout=self._patience())
            except queue.Empty:  # noqa: PERF203 the loop is made of it
                self._work()
                self._tidy()

    def _tidy(self) -> None:
        """Let go of what ended operations refer to: a VBoxHeadless waits 15 s for that to end."""
        if self._is_untidy:
            gc.collect()
            self._is_untidy = False

    def _patience(self) -> float | None:
        if not self._jobs:
            return None
        return max(0.0, min(job.due for job in self._jobs.values()) - time.monotonic())

    def _take(self, box: Any, message: Message) -> None:
        if isinstance(message, Cancel):
            job = self._jobs.pop(message.id, None)
            if job is not None:
                self._attempt(message.id, job.steps.close)
                self.send(Failure(message.id, "cancelled", "cancelled"))
        elif isinstance(message, Request):
            self._attempt(message.id, lambda: self._begin(box, message))

    def _begin(self, box: Any, request: Request) -> None:
        operation = self._operations.get(request.op)
        if operation is None:
            raise Fault("bug", f"no operation {request.op!r}")
        args = dict(request.args)
        if request.body is not None:
            args["body"] = request.body
        result: Any = operation(box, **args)
        if isinstance(result, types.GeneratorType):
            self._jobs[request.id] = _Job(result, 0.0)
        else:
            self._answer(request.id, result)

    def _work(self) -> None:
        """Take every job that is due one step further."""
        now = time.monotonic()
        for key in [key for key, job in self._jobs.items() if job.due <= now]:
            steps = self._jobs.pop(key).steps
            self._attempt(key, lambda: self._step(key, steps))  # noqa: B023 called at once

    def _step(self, key: int, steps: Generator[Any, None, Any]) -> None:
        try:
            said = next(steps)
        except StopIteration as end:
            self._answer(key, end.value)
            return
        if isinstance(said, Reply):
            self.send(Answer(key, said.value, said.body, more=True))
            said = 0.0
        self._jobs[key] = _Job(steps, time.monotonic() + said)

    def _answer(self, key: int, result: Any) -> None:
        reply = result if isinstance(result, Reply) else Reply(result)
        self.send(Answer(key, reply.value, reply.body))
        self._is_untidy = True

    def _attempt(self, key: int, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            fault = error if isinstance(error, Fault) else self._explain(error)
            if fault is None:
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                fault = Fault("bug", text)
            self.send(Failure(key, fault.kind, str(fault), fault.code))
            self._is_untidy = True
            if fault.kind == "died":  # what we hold is worth nothing any more: begin anew
                sys.stderr.write(f"bridge: {fault}\n")
                os._exit(1)
