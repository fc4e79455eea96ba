"""Radiographs out of their archives: in full depth, the version that was audited, or a sentence."""

import gzip
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from implant_model import storage
from implant_model.decode.decoded import Prepared
from implant_model.decode.prepare import decode
from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits
from jobs.reviewing import originals as module
from jobs.reviewing.originals import Original, Originals, Place
from tests.support.archive_samples import tar_of
from tests.support.object_store import ObjectStore
from tests.support.pictures import encoded
from tests.support.workbench.review_samples import radiograph

MEMBERS = {f"{n}.bin": radiograph(n, dicom=n % 2 == 1) for n in range(4)} | {
    "cut.png": radiograph(0)[:900],
    "notes.txt": b"no picture",
}


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "a.tar": tar_of,
    "a.zip": zipped,
    "a.tar.gz": lambda m: gzip.compress(tar_of(m)),
}


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with Originals(Preprocessing(size_px=64)) as started:
        yield started


def place(path: Path | str, index: int) -> Place:
    info = storage.stat(storage.normalise(str(path)))
    return Place(info.uri, "a", info.version, index)


@pytest.mark.parametrize("name", ARCHIVES)
def test_member_is_shown_in_its_own_depth(name: str, originals: Originals, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name](MEMBERS))
    for index, data in enumerate(list(MEMBERS.values())[:4]):
        found = originals.original(place(tmp_path / name, index))
        same = decode(data, Limits()).pixels_HW
        assert found.pixels_HW is not None
        assert same is not None
        assert found.pixels_HW.dtype == np.uint16
        np.testing.assert_array_equal(found.pixels_HW, same)
    assert "(truncated): It ends too early" in str(
        originals.original(place(tmp_path / name, 4)).trouble
    )
    assert "(not_an_image)" in str(originals.original(place(tmp_path / name, 5)).trouble)
    assert "no member at this position" in str(
        originals.original(place(tmp_path / name, 6)).trouble
    )
    prepared = originals.prepared(place(tmp_path / name, 0))
    assert isinstance(prepared, Prepared)
    assert prepared.image is not None


def test_archive_that_was_replaced_is_not_shown(originals: Originals, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(MEMBERS))
    before = place(path, 0)
    assert originals.original(before).trouble is None
    path.write_bytes(tar_of({**MEMBERS, "0.bin": radiograph(7)}))
    os.utime(path, ns=(1, 1))
    for found in (originals.original(before), originals.prepared(before)):
        assert isinstance(found, Original)
        assert found.is_replaced, "although it was kept in memory"
        assert "was replaced since it was classified" in str(found.trouble)
    path.unlink()
    assert "is not there any more" in str(originals.original(before).trouble)


def test_loose_radiograph_is_compared_by_its_hash(originals: Originals, tmp_path: Path) -> None:
    (tmp_path / "DOE^JANE.png").write_bytes(radiograph(1))
    known = replace(place(tmp_path / "DOE^JANE.png", 0), version="h1", known_version="h1")
    assert originals.original(known).pixels_HW is not None
    assert originals.original(replace(known, version="h0")).is_replaced


def test_corrupt_archive_is_a_sentence_and_what_can_be_read_is_shown(
    originals: Originals, tmp_path: Path
) -> None:
    whole = tar_of(MEMBERS)
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(b"2.bin") + 700])
    assert originals.original(place(tmp_path / "cut.tar", 1)).trouble is None
    assert "(truncated)" in str(originals.original(place(tmp_path / "cut.tar", 2)).trouble)
    assert "no member" in str(originals.original(place(tmp_path / "cut.tar", 3)).trouble)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole)[:4000])
    assert "cannot be read: truncated" in str(
        originals.original(place(tmp_path / "a.tar.gz", 3)).trouble
    )
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    assert "unsupported" in str(originals.original(place(tmp_path / "a.7z", 0)).trouble)


def test_picture_is_read_once_however_many_ask(
    originals: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(MEMBERS))
    reads: list[Place] = []
    read = originals._read

    def counting(where: Place) -> Original:
        reads.append(where)
        return read(where)

    monkeypatch.setattr(originals, "_read", counting)
    wanted = [place(tmp_path / "a.tar", n % 3) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(originals.original, wanted))
    assert all(one.trouble is None for one in found)
    assert len(reads) == 3
    assert originals.was_shown(wanted[0])
    assert not originals.was_shown(place(tmp_path / "a.tar", 3))


def test_memory_is_bounded(
    originals: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", 40_000)
    (tmp_path / "a.tar").write_bytes(tar_of(MEMBERS))
    for index in range(4):
        originals.original(place(tmp_path / "a.tar", index))
    assert sum(kept.num_bytes for kept in originals._kept.values()) <= 40_000


def test_picture_too_large_for_a_browser_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 50_000)
    with Originals(Preprocessing(size_px=64)) as originals:
        found = originals.decode(encoded(np.full((600, 300), 77, np.uint8)))
        assert found.pixels_HW is not None
        assert (found.pixels_HW.shape, found.reduced) == ((300, 150), 2)
        assert originals.prepare(b"").reason == "empty"


def test_radiograph_of_a_bucket(
    originals: Originals, bucket: str, object_store: ObjectStore
) -> None:
    client = object_store.client()
    client.put_object(Bucket=bucket, Key="a.tar", Body=tar_of(MEMBERS))
    where = place(f"s3://{bucket}/a.tar", 2)
    assert originals.original(where).pixels_HW is not None
    client.put_object(Bucket=bucket, Key="a.tar", Body=tar_of(MEMBERS) + bytes(512))
    assert originals.original(where).is_replaced
