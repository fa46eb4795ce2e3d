"""One command to a monitor: obeyed, refused, cut off, and not answered at all."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hostctl.backends.qemu.brief import tell
from hostctl.errors import MonitorError

GREETING: dict[str, object] = {"QMP": {"version": {}}}
Answer = Callable[[dict[str, object]], list[dict[str, object]]]


@asynccontextmanager
async def monitor(answer: Answer, *, greets: bool = True) -> AsyncIterator[tuple[Path, list[str]]]:
    """Serve a monitor; yield its path, and the commands that it gets. None to say ends it."""
    heard: list[str] = []
    serving = set[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        if greets:
            writer.write(json.dumps(GREETING).encode() + b"\n")
        while line := await reader.readline():
            request = json.loads(line)
            heard.append(request["execute"])
            lines = answer(request)
            if not lines:
                break
            for each in lines:
                writer.write(json.dumps(each).encode() + b"\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    with tempfile.TemporaryDirectory(prefix="hm-") as folder:
        path = Path(folder) / "qmp.sock"
        async with await asyncio.start_unix_server(serve, path):
            yield path, heard
            await asyncio.gather(*filter(None, serving))


async def test_events_before_an_answer_are_passed_over() -> None:
    def answer(request: dict[str, object]) -> list[dict[str, object]]:
        return [{"event": "RESUME"}, {"return": {}, "id": request["id"]}]

    async with monitor(answer) as (path, heard):
        await tell(path, "cont")
    assert heard == ["qmp_capabilities", "cont"]


async def test_a_refusal_is_told() -> None:
    def answer(request: dict[str, object]) -> list[dict[str, object]]:
        if request["execute"] == "cont":
            return [{"error": {"class": "GenericError", "desc": "not now"}, "id": request["id"]}]
        return [{"return": {}, "id": request["id"]}]

    async with monitor(answer) as (path, _):
        with pytest.raises(MonitorError, match="cont: not now"):
            await tell(path, "cont")


async def test_an_end_before_the_answer_is_told_and_so_is_when() -> None:
    async with monitor(lambda request: []) as (path, _):
        with pytest.raises(MonitorError, match="ended before it answered") as caught:
            await tell(path, "cont")
        assert caught.value.command == "qmp_capabilities"
    with pytest.raises(MonitorError) as caught:
        await tell(path, "cont")
    assert caught.value.command == "connect"


async def test_a_monitor_that_somebody_else_holds_says_nothing() -> None:
    async with monitor(lambda request: [], greets=False) as (path, _):
        with pytest.raises(MonitorError, match=r"no answer within 0\.05 s") as caught:
            await tell(path, "cont", 0.05)
    assert caught.value.command == "connect"
