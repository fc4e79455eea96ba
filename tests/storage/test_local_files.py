"""Files of this machine: whole or not at all, through no link."""

from pathlib import Path

import pytest

from implant_model.storage.local_files import whole_file, write_whole


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b", whole")
    assert path.read_bytes() == b"half, whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, b"old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new" * 1_000_000)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    path = tmp_path / "page.html"
    path.symlink_to(tmp_path / "theirs")
    write_whole(path, b"ours")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert not path.is_symlink()
    assert path.read_bytes() == b"ours"


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_whole(tmp_path / "file" / "page.html", b"x")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"x")
    assert [path.name for path in tmp_path.parent.glob(".*.part")] == []
