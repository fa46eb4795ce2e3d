"""The reader against what Python's tarfile writes, in pieces of any size; and against nonsense."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostctl.errors import HostileTree
from hostctl.tree.tarstream import Entry, Event, Kind, Piece, TarReader

NAMES = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1)


def events(data: bytes, step: int) -> list[Entry | tuple[int, bytes]]:
    reader = TarReader()
    found: list[Entry | tuple[int, bytes]] = []
    for at in range(0, len(data), step):
        found += [kept(event) for event in reader.feed(data[at : at + step])]
    reader.close()
    return found


def kept(event: Event) -> Entry | tuple[int, bytes]:
    return (event.offset, bytes(event.view)) if isinstance(event, Piece) else event


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=4),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]),
    st.integers(1, 2000),
)
def test_what_was_written_is_read(files: list[tuple[str, bytes]], kind: int, step: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name if kind != tarfile.USTAR_FORMAT else "x")
            info.size, info.mtime = len(content), 1234567890
            tar.addfile(info, io.BytesIO(content))
    found: list[tuple[bytes, bytes]] = []
    for event in events(file.getvalue(), step):
        if isinstance(event, Entry):
            assert (event.kind, event.mtime_s) == (Kind.FILE, 1234567890)
            found.append((event.path, b""))
        else:
            assert event[0] == len(found[-1][1])
            found[-1] = found[-1][0], found[-1][1] + event[1]
    if kind == tarfile.USTAR_FORMAT:
        files = [("x", content) for _, content in files]
    assert found == [(name.encode(), content) for name, content in files]


@given(st.binary(max_size=3000), st.integers(1, 2000))
def test_nonsense_is_refused_or_empty(data: bytes, step: int) -> None:
    with contextlib.suppress(HostileTree):
        assert events(data, step) == []


@given(st.data())
def test_a_changed_byte_never_does_worse_than_an_error(data: st.DataObject) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("ä" * 120)
        info.size = 700
        tar.addfile(info, io.BytesIO(b"y" * 700))
    text = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HostileTree):
        events(bytes(text), 700)


def meta(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("meta")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_without_end_is_refused_before_it_is_kept(kind: bytes) -> None:
    with pytest.raises(HostileTree, match="too long"):
        list(TarReader().feed(meta(kind, 1 << 40)))


def test_headers_about_headers_come_to_an_end() -> None:
    with pytest.raises(HostileTree, match="too long"):
        list(TarReader().feed((meta(b"g", 512) + bytes(512)) * 20))


def test_zeros_without_end_are_refused() -> None:
    with pytest.raises(HostileTree, match="goes on"):
        list(TarReader().feed(bytes(512 * 5000)))


def test_archives_may_be_concatenated() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    assert len(events(2 * file.getvalue(), 777)) == 2


@pytest.mark.parametrize(
    "record",
    [
        b"999 path=x\n",
        b"nonsense",
        b"11 size=-1\n",
        b"12 size=1e9\n",
        b"30 mtime=" + b"9" * 20 + b"\n",
        b"22 GNU.sparse.major=1\n",
    ],
)
def test_a_bad_record_is_refused(record: bytes) -> None:
    data = meta(b"x", len(record)) + record.ljust(512, b"\0")
    with pytest.raises(HostileTree):
        list(TarReader().feed(data + tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)))


def sparse(size: int, real: int, *extents: tuple[int, int], more: int = 0) -> bytes:
    """Write the header of a sparse file as GNU tar does."""
    info = tarfile.TarInfo("s")
    info.type, info.size = b"S", size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for number, (offset, length) in enumerate(extents):
        at = 386 + 24 * number
        block[at : at + 24] = b"%011o\0%011o\0" % (offset, length)
    block[482] = more
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_holes_are_told_by_their_offsets() -> None:
    data = sparse(1024, 9000, (0, 512), (8000, 512)) + b"a" * 512 + b"b" * 512 + bytes(1024)
    entry, *pieces = events(data, 300)
    assert isinstance(entry, Entry)
    assert entry.size_bytes == 9000
    content = bytearray(9000)
    for piece in pieces:
        assert isinstance(piece, tuple)
        content[piece[0] : piece[0] + len(piece[1])] = piece[1]
    assert content == b"a" * 512 + bytes(7488) + b"b" * 512 + bytes(488)


@pytest.mark.parametrize(
    "header",
    [
        sparse(512, 100, (0, 512)),
        sparse(512, 9000, (0, 100)),
        sparse(1024, 9000, (0, 512), (100, 512)),
        sparse(1024, 9000, (1000, 512), (0, 512)),
    ],
    ids=["beyond the end", "not what is stored", "overlapping", "backwards"],
)
def test_impossible_holes_are_refused(header: bytes) -> None:
    with pytest.raises(HostileTree, match="impossible"):
        list(TarReader().feed(header))


def test_a_map_of_holes_comes_to_an_end() -> None:
    block = bytearray(b"%011o\0%011o\0" % (0, 0)) * 21 + b"\1" + bytes(7)
    with pytest.raises(HostileTree, match="too many holes"):
        list(TarReader().feed(sparse(0, 0, more=1) + bytes(block) * 5000))
