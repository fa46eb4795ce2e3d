"""Every input the fuzzer ever found worth keeping, replayed."""

from pathlib import Path

import pytest

from .fuzz_wire import one_input

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_an_input_is_read_the_same_whole_and_in_pieces(path: Path) -> None:
    one_input(path.read_bytes())


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) >= 10
