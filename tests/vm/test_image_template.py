"""The template of an image: made once, by whoever comes first, and again when it is old."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.controller import Controller
from hostctl.errors import TemplateUnfit
from hostctl.state import Home
from hostctl.template import RECORD
from tests.homes import emptied, short_home

pytestmark = pytest.mark.vm

MEMORY_MIB = 128


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with short_home("hi-") as home:
        yield home


@pytest.fixture
async def controller(home: Home) -> AsyncIterator[Controller]:
    async with emptied(home) as controller:
        yield controller


async def test_who_asks_at_once_gets_the_same(controller: Controller) -> None:
    talk: list[str] = []
    found = await asyncio.gather(
        *(
            controller.template_of("tiny", memory_mib=MEMORY_MIB, progress=talk.append)
            for _ in range(2)
        )
    )
    assert found[0] == found[1]
    assert found[0].name == f"tiny-{MEMORY_MIB}"
    assert len([line for line in talk if line.startswith("making the template")]) == 1
    clone = await controller.clone(found[0].name, "clone")
    assert (await clone.shell("grep MemTotal /proc/meminfo")).exit.ok


async def test_of_another_image_it_is_used_while_in_use_and_then_made_anew(
    controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    old = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    _edit(old.folder / RECORD, "made_of", {"hostctl": "0.0.1", "files": []})
    user = await controller.clone(old.name, "user")
    still = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    assert still.created_s == old.created_s
    assert "it is of an older image; it is used as it is" in caplog.text
    await user.delete(force=True)
    new = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    assert new.created_s > old.created_s
    assert new.made_of != {"hostctl": "0.0.1", "files": []}


async def test_one_that_does_not_fit_is_made_anew_as_it_was_made(controller: Controller) -> None:
    old = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    user = await controller.clone(old.name, "user")
    os.utime(old.folder / "ram")
    with pytest.raises(TemplateUnfit) as caught:
        await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    assert "user" in (caught.value.hint or "")
    await user.delete(force=True)
    new = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    assert new.created_s > old.created_s
    await controller.delete_template(new.name)
    spec = MachineSpec("any", image="tiny", memory_mib=MEMORY_MIB)
    own = await controller.create_template(new.name, spec, warm=["touch /tmp/warm"])
    assert await controller.template_of("tiny", memory_mib=MEMORY_MIB) == own
    os.utime(own.folder / "ram")
    await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    clone = await controller.clone(own.name, "warm")
    assert (await clone.shell("test -e /tmp/warm")).exit.ok


async def test_a_clone_that_is_kept_outlives_its_owner(controller: Controller) -> None:
    await controller.delete_template(f"tiny-{MEMORY_MIB}")
    found = await controller.template_of("tiny", memory_mib=MEMORY_MIB)
    owner = await asyncio.create_subprocess_exec("sleep", "600")
    for name in ("kept", "swept"):
        await controller.clone(found.name, name, owner_pid=owner.pid)
    controller.keep("kept")
    owner.kill()
    await owner.wait()
    await controller.sweep_throwaways()
    assert controller.names("*") == ("kept",)
    assert (await controller.machine("kept").shell("echo well")).stdout == b"well\n"


def _edit(record: Path, key: str, value: object) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | {key: value}))
