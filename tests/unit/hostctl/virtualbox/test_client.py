"""hostctl's end of the bridge, against real processes: one without vboxapi, and one with a fake."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostctl.backends.virtualbox.client import Bridge, borrow, give_back
from hostctl.backends.virtualbox.faults import BridgeDied, VirtualBoxError
from hostctl.backends.virtualbox.place import Place
from hostctl.errors import DeadlineExceeded, ToolMissing, Unsupported

# A vboxapi just real enough for the bridge to greet and to list no machines.
VBOXAPI = """
import os, time
class VirtualBox:
    version = os.environ.get("FAKE_VERSION", "7.2.99")
    APIVersion, homeFolder = "7_2", "/nowhere"
    def getMachines(self): return []
    def findMachine(self, name): time.sleep(30)
class NotRegistered(Exception):
    errno, msg = 0x80040154 - (1 << 32), "Class not registered (NS_ERROR_FACTORY_NOT_REGISTERED)"
class Constants:
    def all_values(self, name): return {}
class VirtualBoxManager:
    constants = Constants()
    def __init__(self, style, params): print("noise on stdout")
    def getVirtualBox(self):
        if path := os.environ.get("FAKE_REBIRTH"):
            with open(path, "a+") as file:
                file.write("x")
                if file.tell() < 3: raise NotRegistered()
        return VirtualBox()
    def getBinDir(self): return "/usr/lib/virtualbox"
    def deinit(self): pass
"""


@pytest.fixture
def fake(tmp_path: Path) -> Place:
    (tmp_path / "vboxapi.py").write_text(VBOXAPI)
    return Place(("env", f"PYTHONPATH={tmp_path}"), python=sys.executable)


@pytest.fixture
async def bridge(fake: Place) -> AsyncIterator[Bridge]:
    bridge = Bridge(fake)
    yield bridge
    await bridge.close()


async def test_it_greets_and_answers(bridge: Bridge) -> None:
    greeting = await bridge.connect()
    assert greeting["version"] == "7.2.99"
    assert greeting["python"].endswith(sys.executable)
    assert (await bridge.call("machines.list")).value == []


async def test_a_vboxsvc_that_comes_up_anew_is_waited_for(
    bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen after it was killed, one time in five."""
    monkeypatch.setenv("FAKE_REBIRTH", str(tmp_path / "tries"))
    assert (await bridge.call("machines.list")).value == []
    monkeypatch.setattr("hostctl.backends.virtualbox.client.REBIRTH_S", 0)
    await bridge.close()
    (tmp_path / "tries").unlink()
    with pytest.raises(VirtualBoxError, match="not registered"):
        await bridge.connect()


async def test_many_may_ask_at_once(bridge: Bridge) -> None:
    asked = [bridge.call("machines.list") for _ in range(20)]
    assert [answer.value for answer in await asyncio.gather(*asked)] == [[]] * 20


async def test_a_killed_one_is_replaced(bridge: Bridge) -> None:
    await bridge.connect()
    first = bridge.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while bridge.pid:  # noqa: ASYNC110 asyncio tells when it has noticed
        await asyncio.sleep(0.01)
    assert (await bridge.call("machines.list")).value == []
    assert bridge.pid != first


async def test_one_that_hangs_is_ended_and_its_request_fails(bridge: Bridge) -> None:
    await bridge.connect()
    other = asyncio.create_task(bridge.call("machine.look", machine="y"))
    with pytest.raises(DeadlineExceeded, match=r"machine\.look"):
        await bridge.call("machine.look", machine="x", timeout_s=0.3)
    with pytest.raises(BridgeDied):
        await other
    assert bridge.pid is None
    assert (await bridge.call("machines.list")).value == []


async def test_a_python_without_vboxapi_is_named_with_the_way_out() -> None:
    bridge = Bridge(Place(python=sys.executable))
    with pytest.raises(ToolMissing, match="vboxapi") as caught:
        await bridge.connect()
    assert "hostctl[virtualbox]" in (caught.value.hint or "")
    assert bridge.pid is None


@pytest.mark.parametrize("python", ["/nowhere/python", "false"])
async def test_what_is_no_python_is_told(python: str) -> None:
    with pytest.raises((ToolMissing, BridgeDied)):
        await Bridge(Place(python=python)).connect()


async def test_an_unknown_virtualbox_is_refused_in_one_line(fake: Place) -> None:
    place = Place((*fake.prefix, "FAKE_VERSION=9.0.1"), python=sys.executable)
    with pytest.raises(Unsupported, match=r"VirtualBox 9\.0\.1 is not known here"):
        await Bridge(place).connect()


async def test_it_is_shared_and_ends_with_its_last_user(fake: Place) -> None:
    one, two = borrow(fake), borrow(fake)
    assert one is two
    await one.connect()
    pid = one.pid
    await give_back(one)
    assert two.pid == pid
    await give_back(two)
    assert two.pid is None


async def test_it_ends_when_we_are_killed(fake: Place) -> None:
    script = (
        "import asyncio, sys\n"
        "from hostctl.backends.virtualbox.client import Bridge\n"
        "from hostctl.backends.virtualbox.place import Place\n"
        "async def main():\n"
        f"    bridge = Bridge(Place({fake.prefix!r}, python={fake.python!r}))\n"
        "    await bridge.connect()\n"
        "    print(bridge.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    pid = int(await child.stdout.readline())
    child.kill()
    await child.communicate()
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 no child of ours
            await asyncio.sleep(0.02)
