import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model import storage
from implant_model.archives.read import BytesReader, is_clutter, read_members
from implant_model.errors import ArchiveReason, ChangedError, Reason
from implant_model.limits import MIB, Limits
from tests.support.archive_samples import (
    END,
    CountingReader,
    RawEntry,
    entry,
    raw_zip,
    read,
    some_files,
    tar_of,
    zip_of,
)
from tests.support.object_store import ObjectStore

UNSUPPORTED = ArchiveReason.UNSUPPORTED
FILES = some_files(3)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
DICOM = bytes(128) + b"DICM" + bytes(200)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.dcm", "", "a"])
@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_content_decides_and_not_the_name(name: str, pack: object, compress: object) -> None:
    archive = compress(pack(FILES))  # type: ignore[operator]
    reading = read(archive, name=name)
    if pack is zip_of and compress is not bytes:
        assert (reading.members, reading.reason) == ([], UNSUPPORTED)
    else:
        assert (reading.contents, reading.error) == (FILES, None)


@pytest.mark.parametrize(
    "image", [PNG, DICOM, b"\xff\xd8\xff\xe0" + bytes(99), b"what", b"BM" * 600]
)
def test_anything_else_is_a_single_radiograph(image: bytes) -> None:
    reading = read(image, name="folder/x.dcm")
    assert (reading.contents, reading.error) == ([("folder/x.dcm", image)], None)
    assert reading.members[0].size == len(image)


def test_an_empty_object() -> None:
    assert read(b"", name="x.tar").rows == [("x.tar", "empty")]


@pytest.mark.parametrize(
    "archive",
    [
        _xz(tar_of(FILES)),
        bz2.compress(tar_of(FILES)),
        bz2.compress(b""),
        b"7z\xbc\xaf\x27\x1c" + bytes(100),
        b"Rar!\x1a\x07\x01\x00" + bytes(100),
        b"\x04\x22\x4d\x18" + bytes(100),
    ],
)
def test_other_archives(archive: bytes) -> None:
    reading = read(archive)
    assert (reading.members, reading.reason) == ([], UNSUPPORTED)
    assert "accepted are tar, tar.gz, tar.zst, zip" in str(reading.error)
    inside = [("a", b"a"), ("inner", archive), ("b", b"b")]
    rows = [("a", None), ("inner", "nested_archive"), ("b", None)]
    assert read(tar_of(inside)).rows == rows
    assert read(zip_of(inside)).rows == rows


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_archives_in_archives(compress: object) -> None:
    for inner in (tar_of(FILES), zip_of(FILES), zip_of([])):
        stored = compress(inner)  # type: ignore[operator]
        for pack in (tar_of, zip_of):
            reading = read(pack([("inner", stored), ("b", b"b")]))
            assert reading.rows == [("inner", "nested_archive"), ("b", None)]
            assert reading.error is None


def test_a_dicom_whose_preamble_is_an_archive_is_a_dicom() -> None:
    for magic in (b"PK\3\4", b"\x1f\x8b\x08", b"II*\0", b"MZ", b"Rar!\x1a\x07"):
        dicom = magic.ljust(128, b"\0") + b"DICM" + bytes(600)
        assert read(dicom).contents == [("object", dicom)]
        assert read(tar_of([("x", dicom)])).contents == [("x", dicom)]


@pytest.mark.parametrize(
    ("name", "clutter"),
    [
        (".DS_Store", True),
        ("a/b/.DS_Store", True),
        ("__MACOSX/a/x.dcm", True),
        ("a/__MACOSX/._x.dcm", True),
        ("a/._x.dcm", True),
        ("a\\Thumbs.db", True),
        ("THUMBS.DB", True),
        ("desktop.ini", True),
        ("disc/DICOMDIR", True),
        ("x.dcm", False),
        ("DICOMDIR/x.dcm", False),
        ("my__MACOSX/x.dcm", False),
        ("_x.dcm", False),
        ("", False),
    ],
)
def test_clutter(name: str, clutter: bool) -> None:
    assert is_clutter(name) is clutter
    if name:
        expected = [(name.replace("\\", "\\"), "clutter" if clutter else None)]
        assert read(zip_of([(name, PNG)])).rows == expected
        assert read(tar_of([(name, PNG)])).rows == expected
        assert read(PNG, name=name).rows == expected


def test_limits() -> None:
    for pack in (tar_of, zip_of):
        archive = pack([("a", b"a"), ("b", b"b" * 100), ("c", b"c")])
        assert read(archive, Limits(member_bytes=99)).rows == [
            ("a", None),
            ("b", "too_large"),
            ("c", None),
        ]
        assert read(archive, Limits(members=3)).error is None
        reading = read(archive, Limits(members=2))
        assert [name for name, _ in reading.rows] == ["a", "b"]
        assert reading.reason is UNSUPPORTED
        assert "Limits.members" in str(reading.error)
    assert read(PNG, Limits(member_bytes=20)).rows == [("object", "too_large")]


def test_names_of_single_radiographs_are_fit_for_a_table() -> None:
    name = "b\udcffd\ud800\x00.dcm"
    assert read(PNG, name=name).rows[0][0] == "b\\xed\\xb3\\xbfd\\xed\\xa0\\x80\\x00.dcm"


class _FailingReader(BytesReader):
    def stream(self, start: int = 0) -> Iterator[bytes]:
        yield from list(super().stream(start))[:5]
        raise ChangedError("The object was replaced.")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_errors_of_the_storage_pass_through(compress: object) -> None:
    files = [(f"{i}", random.Random(i).randbytes(MIB)) for i in range(9)]
    stored = compress(tar_of(files))  # type: ignore[operator]
    members = read_members(_FailingReader(stored, MIB), "x", Limits())
    assert [next(members).data for _ in range(4)] == [data for _, data in files[:4]]
    with pytest.raises(ChangedError):
        list(members)


@pytest.mark.parametrize("pack", [tar_of, lambda files: zip_of(files, 0)])
def test_a_consumer_that_stops_ends_the_stream(pack: object) -> None:
    files = [(f"{i}", random.Random(i).randbytes(MIB)) for i in range(12)]
    reader = CountingReader(pack(files))  # type: ignore[operator]
    members = read_members(reader, "x", Limits())
    for _ in range(7):
        next(members)
    assert reader.num_open == 1
    members.close()  # type: ignore[attr-defined]
    assert reader.num_open == 0
    assert reader.num_bytes < 10 * MIB


def test_a_tar_is_read_once_from_its_start() -> None:
    files = [(f"{i}", random.Random(i).randbytes(MIB)) for i in range(12)]
    reader = CountingReader(tar_of(files))
    assert read(reader).contents == files
    assert (reader.reads, reader.streams) == ([], [0])
    small = CountingReader(PNG)
    assert read(small).contents == [("object", PNG)]
    assert (small.reads, small.streams) == ([], [0])


def test_empty_archives() -> None:
    for archive in (tar_of([]), zip_of([]), gzip.compress(tar_of([])), zstd.compress(END)):
        reading = read(archive)
        assert (reading.members, reading.error) == ([], None)


def test_damage_in_the_first_header_does_not_hide_the_tar() -> None:
    files = some_files(3)
    whole = tar_of(files, tarfile.USTAR_FORMAT)
    for at in (0, 124, 148, 156, 257, 400):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        reading = read(bytes(damaged))
        assert reading.reason is ArchiveReason.CORRUPT, at
        assert [reason for _, reason in reading.rows] == [Reason.CORRUPT, None, None]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_are_they_are_rows_or_an_archive_error(data: st.DataObject) -> None:
    """Mutated archives of every kind: no other exception leaves the reader."""
    packers = [
        tar_of(FILES),
        gzip.compress(tar_of(FILES)),
        zstd.compress(tar_of(FILES)),
        zip_of(FILES),
        zip_of(FILES, streamed=True),
        raw_zip(RawEntry(wide=True), wide=True),
        entry(b"data", kind=b"S", at_482=b"\1") + END,
    ]
    archive = bytearray(data.draw(st.sampled_from(packers)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        if not archive:
            break
    reading = read(bytes(archive))
    assert len(reading.members) <= 12


def test_archives_from_the_storage(tmp_path: Path) -> None:
    files = [(f"{i:03}.dcm", random.Random(i).randbytes(300_000)) for i in range(60)]
    for name, archive in (
        ("a.tar", tar_of(files)),
        ("b.tar.gz", gzip.compress(tar_of(files), 1)),
        ("c.zip", zip_of(files)),
        ("d.dcm", DICOM),
    ):
        (tmp_path / name).write_bytes(archive)
    for info in storage.list_objects(storage.normalise(str(tmp_path))):
        with storage.open_object(info) as reader:
            reading = read(reader, name=info.uri)
        assert reading.error is None
        assert reading.contents == ([(info.uri, DICOM)] if info.uri.endswith("dcm") else files)


def test_archives_from_object_storage(object_store: ObjectStore, bucket: str) -> None:
    files = [(f"{i:03}.dcm", random.Random(i).randbytes(300_000)) for i in range(60)]
    uri = f"s3://{bucket}/archives"
    for name, archive in (
        ("a.tar", tar_of(files)),
        ("b.tar.zst", zstd.compress(tar_of(files))),
        ("c.zip", zip_of(files)),
        ("d.dcm", DICOM),
    ):
        object_store.client().put_object(Bucket=bucket, Key=f"archives/{name}", Body=archive)
    for info in storage.list_objects(uri):
        with storage.open_object(info) as reader:
            reading = read(reader, name="d.dcm")
        assert reading.error is None
        assert reading.contents == ([("d.dcm", DICOM)] if info.uri.endswith("dcm") else files)


def test_an_object_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of([(f"{i}", bytes(4 * MIB)) for i in range(12)]))
    info = storage.stat(str(path))
    with storage.open_object(info) as reader:
        members = read_members(reader, "x", Limits())
        next(members)
        path.write_bytes(b"other")
        with pytest.raises(ChangedError):
            list(members)


def test_cpython_s_own_test_archives() -> None:
    folder = Path(tarfile.__file__).parent / "test"
    found = [path for path in (folder / "testtar.tar", folder / "zipdir.zip") if path.exists()]
    if not found:
        pytest.skip("this Python comes without its tests")
    for path in found:
        reading = read(path.read_bytes())
        assert reading.error is None
        if path.suffix == ".tar":
            with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
                assert len(reading.members) == sum(not info.isdir() for info in tar)
