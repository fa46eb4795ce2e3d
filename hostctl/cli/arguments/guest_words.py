"""Where our words end and the guest's begin: what argparse cannot say of `hostctl exec`."""


def split_guest_words(words: list[str], valued: frozenset[str]) -> tuple[list[str], list[str]]:
    """Cut a line of `exec` into our words and the guest's.

    The guest's begin after `--`, or with the second word that is no option: `exec web ls -i` must
    list inodes, not become interactive. argparse cannot say that, and its own handling of `--`
    differs between Python versions. `valued` names the options which take a value.
    """
    named = False
    skip = False
    for at, word in enumerate(words):
        if skip:
            skip = False
        elif word == "--":
            return words[:at], words[at + 1 :]
        elif word.startswith("-") and word != "-":
            skip = _awaits_value(word, valued)
        elif named:
            return words[:at], words[at:]
        else:
            named = True
    return words, []


def _awaits_value(word: str, valued: frozenset[str]) -> bool:
    """Tell whether the next word belongs to this one: `--env K=V`, `-e K=V`, `-ie K=V`."""
    if word.startswith("--"):
        return word in valued
    first = next((at for at, letter in enumerate(word) if f"-{letter}" in valued), None)
    return first is not None and first == len(word) - 1
