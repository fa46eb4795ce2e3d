"""Our standard streams, led elsewhere for a while: commands use descriptors, not sys.stdin."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replaced(descriptor: int, fd: int) -> Iterator[None]:
    """Put `fd` in the place of `descriptor`."""
    ours = os.dup(descriptor)
    os.dup2(fd, descriptor)
    try:
        yield
    finally:
        os.dup2(ours, descriptor)
        os.close(ours)


@contextmanager
def stdin_from(fd: int) -> Iterator[None]:
    """Put `fd` in the place of descriptor 0."""
    with replaced(0, fd):
        yield


@contextmanager
def stdin_of(data: bytes) -> Iterator[None]:
    """Let descriptor 0 be a pipe that holds `data`, and ends there."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        with stdin_from(reader):
            yield
    finally:
        os.close(reader)
