"""The words that lead to VirtualBox, and those that only it obeys."""

import json
from pathlib import Path

import pytest

from hostctl.cli.create import spec_of
from hostctl.cli.exits import Exit
from hostctl.cli.main import main, parse

from .fakes import FakeController, FakeMachine


def test_create_takes_a_cd_and_no_image(controller: FakeController, tmp_path: Path) -> None:
    iso = tmp_path / "guest.iso"
    iso.touch()
    line = ["create", "new", "--backend", "virtualbox", "--disk", str(iso)]
    assert spec_of(parse(line)).image is None
    assert main([*line, "--connect", "env HOME=/x"]) == Exit.OK
    assert controller.asked == ("virtualbox", "env HOME=/x")


def test_create_without_a_disk_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "new", "--backend", "virtualbox"]) == Exit.USAGE
    assert "needs an image, a kernel or a disk" in capsys.readouterr().err


def test_adopt_leads_to_virtualbox(controller: FakeController) -> None:
    assert main(["adopt", "win11", "--backend", "virtualbox"]) == Exit.OK
    assert (controller.asked, controller.backend) == (("win11", None), "virtualbox")


def test_stop_may_save(web: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--save", "web", "--json"]) == Exit.OK
    assert web.calls == [("save", None)]
    assert json.loads(capsys.readouterr().out)["done"] == "saved"


def test_clone_makes_another(
    controller: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "web", "web2", "--snapshot", "base", "--json"]) == Exit.OK
    assert controller.asked == ("web", "base")
    shown = json.loads(capsys.readouterr().out)
    assert shown == [{"name": "web2", "of": "web", "snapshot": "base"}]


@pytest.mark.usefixtures("web")
def test_a_screen_is_written(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "web.png"
    assert main(["screenshot", "web", str(path)]) == Exit.OK
    assert path.read_bytes() == b"PNG"
    assert main(["screenshot", "web", "-"]) == Exit.OK
    assert capsysbinary.readouterr().out == b"PNG"
