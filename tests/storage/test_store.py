"""What holds on disk and in object storage alike; see test_storage_*.py for what is particular."""

import pickle
from pathlib import Path

import pytest

from implant_model.errors import ArchiveReason, ChangedError, NotFoundError, StorageError
from implant_model.storage.store import (
    exists,
    list_objects,
    open_object,
    overwrite,
    probe,
    put_if_absent,
    read_bytes,
    stat,
)
from implant_model.storage.uri import (
    ObjectInfo,
    join,
    normalise,
    relative,
)


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder, and of an empty bucket."""
    if request.param == "disk":
        return normalise(str(tmp_path))
    return f"s3://{request.getfixturevalue('bucket')}"


def test_what_is_put_is_listed_and_read(root: str) -> None:
    contents = {
        "batch 1.tar": b"one",
        "site ü/2+3.tar": b"",
        "site ü/deep/x%2Fy.tar": bytes(range(256)) * 9000,
        "site-b/1.tar": b"four",
    }
    for name, data in contents.items():
        assert put_if_absent(join(root, name), data)
        assert not put_if_absent(join(root, name), b"another")
    found = {relative(info.uri, root): info for info in list_objects(root)}
    assert sorted(found) == sorted(contents)
    for name, data in contents.items():
        uri = join(root, name)
        assert found[name].uri == uri
        assert (found[name].size, exists(uri)) == (len(data), len(data))
        assert found[name] == stat(uri)
        assert read_bytes(uri) == data
        with open_object(found[name]) as reader:
            assert (reader.size, reader.version) == (len(data), found[name].version)
            assert b"".join(reader.stream(1)) == reader.read_at(1, 1 << 30) == data[1:]
            for wrong in (lambda r=reader: list(r.stream(-1)), lambda r=reader: r.read_at(0, -1)):
                with pytest.raises(ValueError, match="0 or more"):
                    wrong()


def test_what_may_be_overwritten_is_another_version_then(root: str) -> None:
    uri = join(root, "new", "_lease")
    overwrite(uri, b"first")
    first = stat(uri)
    overwrite(uri, b"second")
    assert read_bytes(uri) == b"second"
    assert stat(uri).version != first.version
    assert [info.uri for info in list_objects(root)] == [uri]


def test_what_is_absent_is_not_found(root: str) -> None:
    uri = join(root, "absent.tar")
    assert exists(uri) is None
    for ask in (stat, read_bytes, lambda uri: list(list_objects(uri))):
        with pytest.raises(NotFoundError, match=r"absent\.tar") as caught:
            ask(uri)
        assert caught.value.reason == ArchiveReason.NOT_FOUND


def test_another_version_is_not_read(root: str) -> None:
    uri = join(root, "a.tar")
    put_if_absent(uri, b"12345")
    with pytest.raises(ChangedError), open_object(ObjectInfo(uri, 5, "5-1")) as reader:
        reader.read_at(0, 5)


def test_what_crosses_processes_pickles(root: str) -> None:
    put_if_absent(join(root, "a b.tar"), b"12345")
    info = stat(join(root, "a b.tar"))
    copy = pickle.loads(pickle.dumps(info))
    assert copy == info
    with open_object(copy) as reader:
        assert reader.read_at(0, 5) == b"12345"
    error = pickle.loads(pickle.dumps(ChangedError("It changed.")))
    assert (type(error), str(error)) == (ChangedError, "It changed.")


def test_an_output_is_probed_and_its_probe_is_an_object(root: str) -> None:
    probe(join(root, "out"))
    (info,) = list_objects(join(root, "out"))
    assert relative(info.uri, root) == "out/_probe"
    with pytest.raises(StorageError, match="10 at most are accepted"):
        read_bytes(info.uri, max_bytes=10)
