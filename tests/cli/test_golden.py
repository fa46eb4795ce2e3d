"""Help texts, word for word: what users see must change on purpose only.

Write them anew with HOSTCTL_GOLDEN=write.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from hostctl.cli.main import COMMANDS, GROUPS, main

GOLDEN = Path(__file__).with_name("golden")
LINES = ["", *(command.name for command in COMMANDS), *GROUPS]


@pytest.mark.parametrize("line", LINES)
def test_help(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([*line.split(), "--help"])
    shown = capsys.readouterr().out
    path = GOLDEN / f"{line.replace(' ', '-') or 'hostctl'}.txt"
    if os.environ.get("HOSTCTL_GOLDEN") == "write":
        path.write_text(shown)
    assert _said(shown) == _said(path.read_text())


def _said(text: str) -> str:
    """Leave the layout out where argparse has another: since 3.13 `-o, --option WORD`."""
    if sys.version_info < (3, 13):
        return text
    return " ".join(re.sub(r"(-\w) (\S+), (--\S+ \2)", r"\1, \3", text).split())


def test_no_golden_text_is_left_over() -> None:
    names = {f"{line.replace(' ', '-') or 'hostctl'}.txt" for line in LINES}
    assert {path.name for path in GOLDEN.iterdir()} == names
