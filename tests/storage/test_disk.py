import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from implant_model.errors import (
    AccessDeniedError,
    ChangedError,
    NotFoundError,
    StorageError,
    UsageError,
)
from implant_model.storage.store import (
    delta_options,
    exists,
    list_objects,
    open_object,
    probe,
    put_if_absent,
    read_bytes,
    stat,
)
from implant_model.storage.uri import normalise, relative

_MIB = 1 << 20


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read everything: become nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _names(root: Path | str) -> list[str]:
    return [relative(info.uri, str(root)) for info in list_objects(str(root))]


def test_put_creates_folders_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "ü" / "unit.parquet"
    assert exists(str(path)) is None
    assert put_if_absent(str(path), b"first")
    assert not put_if_absent(path.as_uri(), b"second")
    assert path.read_bytes() == read_bytes(str(path)) == b"first"
    assert exists(path.as_uri()) == 5
    assert [entry.name for entry in path.parent.iterdir()] == ["unit.parquet"]


def test_put_has_one_winner_among_many_whose_bytes_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "unit"
    barrier = threading.Barrier(8)

    def put(number: int) -> bool:
        barrier.wait()
        return put_if_absent(str(path), bytes([number]) * _MIB)

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(put, range(8)))
    assert created.count(True) == 1
    assert path.read_bytes() == bytes([created.index(True)]) * _MIB
    assert list(path.parent.iterdir()) == [path]


def test_put_that_loses_the_race_at_the_link_leaves_the_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "unit"
    real_link = os.link

    def link(source: str, target: str) -> None:
        path.write_bytes(b"winner")
        real_link(source, target)

    monkeypatch.setattr(os, "link", link)
    assert not put_if_absent(str(path), b"loser")
    assert path.read_bytes() == b"winner"
    assert list(tmp_path.iterdir()) == [path]


def test_put_below_a_file_is_an_error_and_not_already_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for below in ("file/unit", "file/deeper/unit"):
        with pytest.raises(StorageError, match=f"Cannot write .*{below}"):
            put_if_absent(str(tmp_path / below), b"data")


def test_put_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Cannot write .*unit': No space left on device"):
        put_if_absent(str(tmp_path / "unit"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="has no hard links"):
        put_if_absent(str(tmp_path / "unit"), b"data")
    with pytest.raises(UsageError, match="choose an output on another file system"):
        probe(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_list_has_all_files_at_any_depth_sorted_by_uri(tmp_path: Path) -> None:
    names = ["a", "a-b/x", "a.tar", "b/c/d/e.png", "b/ c", "b c", "b/c-d", "z/ü", "z/u", "%41"]
    for name in names:
        target = tmp_path / (f"{name}/file" if name == "a" else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(name.encode())
    (tmp_path / "empty folder").mkdir()
    found = list(list_objects(str(tmp_path)))
    assert [info.uri for info in found] == sorted(info.uri for info in found)
    assert sorted(_names(tmp_path)) == sorted(["a/file", *names[1:]])
    assert found == [stat(info.uri) for info in found]


def test_list_of_a_file_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"12345")
    (found,) = list_objects(str(tmp_path / "a.tar"))
    assert (found.uri, found.size) == ((tmp_path / "a.tar").as_uri(), 5)
    assert _names(tmp_path / "a.tar") == ["a.tar"]


def test_list_of_nothing(tmp_path: Path) -> None:
    assert list(list_objects(str(tmp_path))) == []
    for absent in (tmp_path / "absent", tmp_path / "absent" / "deeper"):
        with pytest.raises(NotFoundError, match="Cannot read .*absent.*check the name"):
            list(list_objects(str(absent)))


def test_list_follows_links_but_never_in_a_circle_nor_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.tar").write_bytes(b"b")
    (tmp_path / "in" / "a.tar").write_bytes(b"a")
    (tmp_path / "in" / "link.tar").symlink_to(tmp_path / "other" / "b.tar")
    (tmp_path / "in" / "mounted").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "in" / "itself").symlink_to(tmp_path / "in" / "itself")
    os.mkfifo(tmp_path / "in" / "pipe")
    assert _names(tmp_path / "in") == ["a.tar", "link.tar", "mounted/b.tar"]
    with pytest.raises(NotFoundError):
        list(list_objects(str(tmp_path / "in" / "dangling")))
    with pytest.raises(StorageError, match="pipe"):
        list(list_objects(str(tmp_path / "in" / "pipe")))


def test_a_name_that_is_not_utf8_is_listed_and_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.tar")).write_bytes(b"bytes")
    (found,) = list_objects(str(tmp_path))
    assert relative(found.uri, str(tmp_path)) == "caf%E9.tar"
    assert read_bytes(found.uri) == b"bytes"


def test_list_goes_deeper_than_python_recurses(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(1200):
        folder = folder / "d"
        folder.mkdir()
    (folder / "a.tar").write_bytes(b"deep")
    assert _names(tmp_path) == ["d/" * 1200 + "a.tar"]
    # pytest's own removal of a tree recurses, so this takes it down.
    (folder / "a.tar").unlink()
    while folder != tmp_path:
        folder.rmdir()
        folder = folder.parent


def test_reader_reads_ranges_and_streams(tmp_path: Path) -> None:
    data = os.urandom(3 * _MIB + 17)
    (tmp_path / "a.tar").write_bytes(data)
    with open_object(stat(str(tmp_path / "a.tar"))) as reader:
        assert reader.size == len(data)
        assert reader.read_at(_MIB - 1, _MIB + 2) == data[_MIB - 1 : 2 * _MIB + 1]
        assert reader.read_at(len(data) - 3, 100) == data[-3:]
        assert reader.read_at(len(data) + 3, 100) == b""
        assert b"".join(reader.stream()) == data
        assert b"".join(reader.stream(2 * _MIB + 1)) == data[2 * _MIB + 1 :]
        assert list(reader.stream(len(data))) == []
        with pytest.raises(ValueError, match="0 or more"):
            reader.read_at(-1, 1)


def test_an_empty_file_is_an_object_without_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    info = stat(str(tmp_path / "a.tar"))
    assert info.size == 0
    with open_object(info) as reader:
        assert list(reader.stream()) == []
        assert reader.read_at(0, 10) == b""


def test_a_file_rewritten_while_it_is_read_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"a" * 4 * _MIB)
    with open_object(stat(str(path))) as reader:
        chunks = reader.stream()
        assert set(next(chunks)) == set(b"a")
        with path.open("r+b") as file:
            file.write(b"b" * 4 * _MIB)
        os.utime(path, ns=(1, 1))
        with pytest.raises(ChangedError, match=r"changed: it was version 4194304-\d+ .* run again"):
            next(chunks)
        with pytest.raises(ChangedError):
            reader.read_at(0, 1)


def test_a_file_that_changed_since_the_plan_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"planned")
    info = stat(str(path))
    path.write_bytes(b"another")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedError):
        open_object(info)
    path.unlink()
    with pytest.raises(NotFoundError):
        open_object(info)


def test_a_file_replaced_by_a_rename_is_read_as_the_version_that_was_opened(
    tmp_path: Path,
) -> None:
    path, new = tmp_path / "a.tar", tmp_path / "new"
    path.write_bytes(b"a" * 4 * _MIB)
    new.write_bytes(b"b" * 4 * _MIB)
    with open_object(stat(str(path))) as reader:
        chunks = reader.stream()
        first = next(chunks)
        new.replace(path)
        assert first + b"".join(chunks) == b"a" * 4 * _MIB


def test_a_file_cut_while_it_is_read_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"a" * 4 * _MIB)
    with open_object(stat(str(path))) as reader:
        os.truncate(path, 10)
        with pytest.raises(ChangedError):
            list(reader.stream())


def test_read_bytes_has_a_bound(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_bytes(b"x" * 11)
    assert read_bytes(str(tmp_path / "package.json"), max_bytes=11) == b"x" * 11
    with pytest.raises(StorageError, match="has 11 bytes; 10 at most are accepted"):
        read_bytes(str(tmp_path / "package.json"), max_bytes=10)


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is a folder; a file is expected"):
        stat(str(tmp_path))
    assert exists(str(tmp_path)) is None


@pytest.mark.usefixtures("unprivileged")
def test_what_may_not_be_read_or_written_is_access_denied() -> None:
    # Not tmp_path: that is below a folder which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        top, closed = Path(name), Path(name) / "closed"
        closed.mkdir()
        (top / "a.tar").write_bytes(b"x")
        info = stat(str(top / "a.tar"))
        (top / "a.tar").chmod(0)
        closed.chmod(0)
        with pytest.raises(AccessDeniedError, match=r"a\.tar': Permission denied; check the"):
            open_object(info)
        with pytest.raises(AccessDeniedError, match="Cannot list"):
            list(list_objects(str(top)))
        with pytest.raises(AccessDeniedError, match="Cannot write"):
            put_if_absent(str(closed / "unit"), b"data")
        with pytest.raises(UsageError, match="The output .*closed' is not usable"):
            probe(str(closed))
        closed.chmod(0o700)


def test_probe_accepts_a_folder_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        probe(str(tmp_path / "new" / "output"))
    assert _names(tmp_path) == ["new/output/_probe"]


def test_probe_refuses_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError, match="The output .*file' is not usable"):
        probe(str(tmp_path / "file"))


def test_probe_finds_a_store_that_does_not_keep_what_was_put(tmp_path: Path) -> None:
    (tmp_path / "_probe").write_bytes(b"of something else")
    with pytest.raises(UsageError, match="holds other bytes"):
        probe(str(tmp_path))


def test_disk_needs_no_delta_options(tmp_path: Path) -> None:
    assert delta_options(normalise(str(tmp_path))) == {}
