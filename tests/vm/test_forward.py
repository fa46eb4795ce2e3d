"""Connections carried into a real machine that has no network."""

import asyncio

import pytest

from hostctl.errors import Refused
from hostctl.machine import Machine

pytestmark = pytest.mark.vm
ENOUGH_S = 60

SERVE = """mkdir -p /www && head -c 3000000 /dev/urandom >/www/big && cp /www/big /tmp/copy
httpd -p 127.0.0.1:80 -h /www
nc -ll -p 81 -e sh -c 'n=$(wc -c); sleep 1; echo got $n' </dev/null >/dev/null 2>&1 &
sleep 0.5"""


async def ask(address: tuple[str, int], text: bytes) -> bytes:
    """Send, close our half, and read to the end."""
    async with asyncio.timeout(ENOUGH_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


async def test_connections_reach_the_guest(machine: Machine) -> None:
    await machine.shell(SERVE, check=True)
    big = await machine.read("/www/big")
    troubles: list[Exception] = []
    async with (
        machine.forward(0, 80, trouble=troubles.append) as web,
        machine.forward(0, "127.0.0.1:81", trouble=troubles.append) as count,
    ):
        assert isinstance(web.address, tuple)
        assert isinstance(count.address, tuple)
        get = b"GET /big HTTP/1.0\r\n\r\n"
        answers = await asyncio.gather(
            *(ask(web.address, get) for _ in range(3)),
            ask(count.address, b"x" * 300_000),
        )
        assert [answer.partition(b"\r\n\r\n")[2] == big for answer in answers[:3]] == [True] * 3
        assert answers[3] == b"got 300000\n"
    assert troubles == []
    assert (await machine.exec("true")).exit.ok


async def test_a_guest_without_a_tool_is_told(machine: Machine) -> None:
    troubles: list[Exception] = []
    async with machine.forward(0, "/run/some.sock", trouble=troubles.append) as forward:
        assert isinstance(forward.address, tuple)
        assert await ask(forward.address, b"") == b""
    assert [type(error) for error in troubles] == [Refused]
