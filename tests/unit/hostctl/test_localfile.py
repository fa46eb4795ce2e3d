import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from hostctl.errors import ConfigError
from hostctl.localfile import SharedSource, replacing, sized


class TestSource:
    def test_bytes_paths_and_files_have_a_size(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"12345")
        for source in (b"12345", path, str(path), io.BytesIO(b"12345")):
            with sized(source) as (file, size_bytes):
                assert (file.read(), size_bytes) == (b"12345", 5)

    def test_an_open_file_counts_from_where_it_stands_and_stays_open(self) -> None:
        file = io.BytesIO(b"12345")
        file.seek(3)
        with sized(file) as (same, size_bytes):
            assert (same.read(), size_bytes) == (b"45", 2)
        assert not file.closed

    def test_a_pipe_is_read_to_its_end(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"12345")
        os.close(writer)
        with open(reader, "rb") as pipe, sized(pipe) as (file, size_bytes):
            assert (file.read(), size_bytes) == (b"12345", 5)

    @pytest.mark.parametrize("path", ["/dev/null", "/proc"])
    def test_what_has_no_size_is_refused(self, path: str) -> None:
        with pytest.raises((ConfigError, IsADirectoryError)), sized(path):
            pass


class TestDestination:
    def test_the_file_takes_its_place_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"old")
        with replacing(path) as sink:
            sink.write(b"new")
            assert path.read_bytes() == b"old"
        assert path.read_bytes() == b"new"
        assert os.listdir(tmp_path) == ["f"]

    def test_a_failure_leaves_the_old_file_and_no_litter(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"old")

        def fail() -> None:
            with replacing(path) as sink:
                sink.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["f"]

    def test_a_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(self, tmp_path: Path) -> None:
        old = os.umask(0o027)
        try:
            with replacing(tmp_path / "new") as sink:
                sink.write(b"x")
        finally:
            os.umask(old)
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o751)
        with replacing(tmp_path / "old") as sink:
            sink.write(b"x")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "old").stat().st_mode & 0o777 == 0o751

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("file")
        with replacing(tmp_path / "link") as sink:
            sink.write(b"x")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_bytes() == b"x"

    def test_a_device_is_written_in_place(self) -> None:
        with replacing("/dev/null") as sink:
            sink.write(b"x")
        assert not Path("/dev/null").is_file()

    def test_a_directory_and_a_missing_folder_are_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError), replacing(tmp_path):
            pass
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "file"):
            pass

    def test_a_name_of_the_longest_length_works(self, tmp_path: Path) -> None:
        with replacing(tmp_path / ("n" * 255)) as sink:
            sink.write(b"x")
        assert os.listdir(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "memory"])
def test_a_shared_source_has_views_that_do_not_meet(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(2)
        memory = io.BytesIO(b"0123456789")
        memory.seek(2)
        sources: dict[str, Path | BinaryIO | bytes]
        sources = {"bytes": b"23456789", "path": path, "file": file, "memory": memory}
        with SharedSource(sources[kind]) as shared:
            whole = b"0123456789" if kind == "path" else b"23456789"
            one, other = shared.view(), shared.view()
            assert shared.size_bytes == len(whole)
            assert one.read(3) == whole[:3]
            assert other.read() == whole
            assert one.read() == whole[3:]
            assert one.read() == b""
            assert one.seek(0, os.SEEK_END) == len(whole)
            assert one.seek(-1, os.SEEK_CUR) == len(whole) - 1
            assert one.read() == b"9"
            with sized(other) as (_, left):
                assert left == 0
        assert file.tell() == 2, "an open file stays where its owner left it"


def test_a_pipe_is_read_once_for_all_views() -> None:
    reader, writer = os.pipe()
    with open(writer, "wb") as end:
        end.write(b"through a pipe")
    with open(reader, "rb") as pipe, SharedSource(pipe) as shared:
        assert {shared.view().read() for _ in range(3)} == {b"through a pipe"}


def test_what_cannot_be_shared_is_refused_before_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"), SharedSource(tmp_path):
        pass
    with pytest.raises(ConfigError, match="not a regular file"), SharedSource("/dev/null"):
        pass
