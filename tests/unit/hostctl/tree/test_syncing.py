"""What makes one folder equal to another: a model of applying the difference, and the rules."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from hostctl.tree.remote import Fact
from hostctl.tree.syncing import compare

NAMES = st.sampled_from([b"a", b"b", b"a-b", b"c"])
FACTS = st.builds(
    Fact, st.sampled_from("fdl"), st.just(0o644), st.integers(1, 2), st.integers(0, 2)
)


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Fact]:
    """Draw a folder: everything is in a folder that is there."""
    found = {b"": Fact("d", 0o755, draw(st.integers(1, 2)), 0)}
    for _ in range(draw(st.integers(0, 8))):
        folder = draw(st.sampled_from(sorted(p for p, f in found.items() if f.kind == "d")))
        path = (folder + b"/" if folder else b"") + draw(NAMES)
        if path not in found:
            found[path] = draw(FACTS)
    return found


def key(fact: Fact) -> tuple[object, ...]:
    return (fact.kind, fact.mtime_s) + (() if fact.kind == "d" else (fact.size_bytes,))


@given(trees(), trees())
def test_the_difference_applied_makes_them_equal(
    source: dict[bytes, Fact], destination: dict[bytes, Fact]
) -> None:
    def same(path: bytes) -> bool:
        return key(source[path]) == key(destination[path])

    found = compare(source, destination, same, checksum=False, delete=True)
    world = dict(destination)
    for doomed in found.doomed:
        world = {p: f for p, f in world.items() if p != doomed and not p.startswith(doomed + b"/")}
    for path in found.make:
        assert path.rpartition(b"/")[0] in world
        assert path not in world
        world[path] = source[path]
    for path in found.send:
        folder = path.rpartition(b"/")[0]
        assert world[folder].kind == "d"
        assert path not in world or world[path].kind != "d"
        assert folder in found.dress  # its time changes
        world[path] = source[path]
    for path in found.dress:
        world[path] = source[path]
    assert shape(world) == shape(source)
    assert compare(source, world, lambda path: True, checksum=False, delete=True).send == []


@given(trees(), trees())
def test_without_delete_nothing_goes_that_is_not_in_the_way(
    source: dict[bytes, Fact], destination: dict[bytes, Fact]
) -> None:
    found = compare(source, destination, lambda path: False, checksum=False, delete=False)
    assert all(path in source for path in found.doomed)
    assert all("d" in (source[path].kind, destination[path].kind) for path in found.doomed)


def shape(world: Mapping[bytes, Fact]) -> dict[bytes, tuple[object, ...]]:
    return {path: key(fact) for path, fact in world.items()}


def test_a_checksum_decides_instead_of_the_time() -> None:
    old = {b"": Fact("d", 0o755, 1, 0), b"x": Fact("f", 0o644, 1, 5)}
    new = {b"": Fact("d", 0o755, 1, 0), b"x": Fact("f", 0o644, 2, 5)}
    assert compare(new, old, lambda _: True, checksum=True, delete=False).send == []
    assert compare(new, old, lambda _: False, checksum=True, delete=False).send == [b"x"]
    assert compare(new, old, lambda _: True, checksum=False, delete=False).send == [b"x"]
    assert compare(old, old, lambda _: False, checksum=False, delete=False).send == []
