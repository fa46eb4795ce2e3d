"""The words of `adopt`, and those that lead other commands to libvirt."""

import json
from pathlib import Path

import pytest

from hostctl.cli.exits import Exit
from hostctl.cli.main import main
from hostctl.errors import BackendError

from .fakes import FakeController, FakeMachine


def test_a_domain_becomes_a_machine(
    controller: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", "debian12", "--connect", "qemu+ssh://far/system", "--json"]) == Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"name": "debian12", "domain": "debian12", "state": "stopped"}
    assert controller.all["debian12"].spec.is_adopted
    assert controller.asked == ("debian12", "qemu+ssh://far/system")


def test_it_may_get_another_name(controller: FakeController) -> None:
    assert main(["adopt", "debian12", "--name", "d"]) == Exit.OK
    assert "d" in controller.all


@pytest.mark.usefixtures("built_tiny")
def test_create_leads_to_libvirt(controller: FakeController) -> None:
    assert main(["create", "new", "--backend", "libvirt", "--connect", "test:///x"]) == Exit.OK
    assert controller.asked == ("libvirt", "test:///x")


@pytest.mark.parametrize("line", ["exec --steal web -- true", "cp --steal -q {file} web:/x"])
def test_lines_can_be_stolen(web: FakeMachine, line: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert main(line.format(file=file).split()) == Exit.OK
    assert web.steal


def test_a_machine_that_cannot_be_asked_is_unknown(
    web: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse() -> None:
        raise BackendError("no libvirt there")

    web.state = refuse  # type: ignore[assignment,method-assign]  # a fake of a fake
    assert main(["list"]) == Exit.OK
    told = capsys.readouterr()
    assert "web   unknown" in told.out
    assert "no libvirt there" in told.err
