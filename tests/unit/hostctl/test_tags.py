"""Tags: what may be one, and what is kept."""

from pathlib import Path

import pytest

from hostctl.errors import BackendError, ConfigError
from hostctl.state import MachineFiles
from hostctl.tags import MAX_TAGS, check_tags, read_tags, write_tags


@pytest.fixture
def files(tmp_path: Path) -> MachineFiles:
    return MachineFiles("web", tmp_path, tmp_path)


def test_tags_are_kept_sorted_each_once_without_their_sign(files: MachineFiles) -> None:
    assert read_tags(files) == ()
    assert write_tags(files, ["ci", "@big", "ci"]) == ("big", "ci")
    assert read_tags(files) == ("big", "ci")
    assert write_tags(files, []) == ()
    assert not files.tags.exists()


@pytest.mark.parametrize("tag", ["", "@", "@@ci", "a b", "a,b", "a/b", "*", "-x", "x" * 64])
def test_what_could_not_be_typed_as_a_word_is_no_tag(files: MachineFiles, tag: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        write_tags(files, ["fine", tag])
    assert read_tags(files) == (), "nothing was changed"


def test_their_number_is_bounded() -> None:
    with pytest.raises(ConfigError, match="too many"):
        check_tags(map(str, range(MAX_TAGS + 1)))


@pytest.mark.parametrize("text", ["{}", '{"tags": 3}', '{"tags": [3]}', '{"tags": ["a b"]}', "["])
def test_a_damaged_file_says_what_to_remove(files: MachineFiles, text: str) -> None:
    files.tags.write_text(text)
    with pytest.raises(BackendError, match="damaged"):
        read_tags(files)
