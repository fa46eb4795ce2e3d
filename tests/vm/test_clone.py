"""How clones begin: their scripts, the memory they may need, and templates made anew."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from hostctl import memory
from hostctl.controller import Controller
from hostctl.errors import (
    ConfigError,
    HookFailed,
    MachineExists,
    MemoryShort,
    TemplateNotFound,
    TemplateUnfit,
)
from hostctl.state import Home, read_json, write_json
from tests.homes import emptied

pytestmark = pytest.mark.vm

NAME_IT = 'hostname "$1"; echo first >/tmp/hook'


@pytest.fixture
async def controller(template_home: Home) -> AsyncIterator[Controller]:
    async with emptied(template_home) as controller:
        yield controller


@pytest.fixture
def hooked(template_home: Home) -> Iterator[None]:
    """Give the template a script for as long as the test runs."""
    record = template_home.templates / "base" / "template.json"
    data = read_json(record)
    assert data is not None
    write_json(record, {**data, "on_clone": NAME_IT})
    yield
    write_json(record, data)


@pytest.mark.usefixtures("hooked")
async def test_each_clone_runs_the_templates_script_and_then_its_own(
    controller: Controller,
) -> None:
    one, two = await controller.clone_all("base", ["one", "two"], on_clone="echo $1 >>/tmp/hook")
    for machine in (one, two):
        assert (await machine.exec("hostname")).stdout.decode().strip() == machine.name
        assert (await machine.read("/tmp/hook")).decode() == f"first\n{machine.name}\n"


async def test_a_clone_whose_script_fails_is_gone_and_its_words_are_told(
    controller: Controller,
) -> None:
    with pytest.raises(HookFailed, match="no keys here") as caught:
        await controller.clone("base", "x", on_clone="echo no keys here >&2; exit 7")
    assert caught.value.result.exit.code == 7
    assert controller.machines() == ()
    with pytest.raises(ConfigError, match="64 KiB"):
        await controller.clone("base", "x", on_clone="#" * 70_000)


async def test_several_clones_are_made_all_or_none(controller: Controller) -> None:
    await controller.clone("base", "b")
    with pytest.raises(MachineExists):
        await controller.clone_all("base", ["a", "b", "c"])
    assert [machine.name for machine in controller.machines()] == ["b"]


async def test_too_little_memory_is_told_before_anything_starts(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = await controller.clone("base", "living")
    report = await living._backend.describe()
    assert report.pid
    promised = memory.promised_bytes(controller.home)
    assert 0 < promised < (256 + memory.QEMU_MIB) << 20
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000 << 20)
    with pytest.raises(MemoryShort, match=r"50 clones .* may need 16000 MiB .* 1000 MiB") as caught:
        await controller.clone_all("base", [f"many-{n}" for n in range(50)])
    assert caught.value.needed_bytes == 16000 << 20
    left = caught.value.available_bytes - ((1000 << 20) - promised)
    assert abs(left) < 64 << 20  # it takes some meanwhile, or gives some back
    assert [machine.name for machine in controller.machines()] == ["living"]
    await controller.clone_all("base", ["a", "b", "c"], overcommit=True)


async def test_an_unfit_template_of_an_image_is_made_anew(controller: Controller) -> None:
    state = controller.home.templates / "base" / "state"
    (old,) = controller.templates()
    with pytest.raises(TemplateUnfit, match="built anew"):
        replace(old, fits={**old.fits, "image": [1, 2]}).check()
    with pytest.raises(TemplateUnfit, match="knew of no machine"):
        replace(old, fits={k: v for k, v in old.fits.items() if k != "machine"}).check()
    user = await controller.clone("base", "user")
    saved = state.read_bytes()
    state.write_bytes(saved[:-1])
    with pytest.raises(TemplateUnfit, match="not those that were saved") as caught:
        await controller.clone("base", "x")
    assert "user" in str(caught.value.hint)
    await user.delete(force=True)
    clone = await controller.clone("base", "x")
    assert await clone.read("/tmp/warm") == b"warm\n"
    (new,) = controller.templates()
    assert (new.recipe, new.created_s > old.created_s) == (old.recipe, True)


async def test_a_template_without_a_recipe_is_not_made_anew(controller: Controller) -> None:
    record = controller.home.templates / "base" / "template.json"
    data = read_json(record)
    assert data is not None
    write_json(record, {**data, "recipe": None, "digest": "another"})
    try:
        with pytest.raises(TemplateUnfit):
            await controller.ensure_template("base")
    finally:
        write_json(record, data)
    with pytest.raises(TemplateNotFound):
        await controller.ensure_template("nobody")
