"""Prepared images: read once, by whoever comes first, kept in shards, and never taken on trust."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import StorageError, UsageError
from implant_model.limits import Limits
from tests.support.archive_samples import tar_of
from tests.support.object_store import ObjectStore
from tests.support.pictures import noise_png
from tests.support.ray_cluster import RayCluster
from training.data import bundles, shards
from training.data.bundles import Bundle, bundles_of
from training.data.gather import gather, list_images
from training.data.labels import Labels, check_labels
from training.data.ray_reading import deal_bundles, read_by_ray
from training.data.reading import Recipe, Tick, read_here
from training.data.shards import Chosen, in_parts, read_batches

SPEC = Preprocessing(size_px=32)


def write(folder: Path, archive: str, first: int, count: int = 3) -> list[dict[str, str]]:
    """An archive of pictures; returns the rows of a labels file that speak of them."""
    members = {f"{number}.png": noise_png(number) for number in range(first, first + count)}
    (folder / archive).write_bytes(tar_of(members))
    return [
        {
            "archive": archive,
            "member": name,
            "label": "ab"[number % 2],
            "patient": f"P{number // 2}",
        }
        for number, name in enumerate(members)
    ]


def labelled(folder: Path, rows: list[dict[str, str]]) -> Labels:
    return check_labels(rows, (folder / "labels.csv").as_uri())


class Counting:
    """`read_here`, that keeps the names of what it reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(
        self, todo: Sequence[Bundle], recipe: Recipe, tick: Tick
    ) -> Iterator[tuple[int, pa.Table]]:
        self.read += [wanted.name for bundle in todo for wanted in bundle.objects]
        return read_here(todo, recipe, tick)


def test_a_set_that_grows_reads_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "SMALL_BYTES", 0)  # each archive a bundle of its own
    folder, cache = tmp_path / "images", str(tmp_path / "cache")
    folder.mkdir()
    rows = [*write(folder, "1.tar", 0), *write(folder, "2.tar", 10)]
    reader, counts = Counting(), list[int]()

    def load() -> np.ndarray:
        objects = list_images([str(folder)])
        held = gather(objects, labelled(folder, rows), SPEC, Limits(), cache, counts.append, reader)
        return held.images[:]

    before = load()
    rows += write(folder, "0.tar", 20)
    after = load()
    assert reader.read == ["1.tar", "2.tar", "0.tar"]
    assert counts == [1, 2, 3, 4, 5, 6, 1, 2, 3]
    assert np.array_equal(after[3:], before)
    for row in rows:
        row["label"] = "ba"["ab".index(row["label"])]  # another label is no other picture
    assert np.array_equal(load(), after)
    rows.pop()  # of 0.tar, another member is wanted than before
    load()
    assert reader.read[3:] == ["0.tar"]


def test_loose_radiographs_share_bundles_that_an_added_one_leaves_as_they_are(
    tmp_path: Path,
) -> None:
    objects = [
        (storage.ObjectInfo(f"file:///x/{number:05}.png", 1000, "1-1"), f"{number:05}.png")
        for number in range(3000)
    ]
    before = [*bundles_of(objects, None, SPEC, Limits())]
    assert 3 <= len(before) < 60
    added = [*objects[:1500], (storage.ObjectInfo("file:///x/a.png", 9, "1"), "1"), *objects[1500:]]
    after = {bundle.key for bundle in bundles_of(added, None, SPEC, Limits())}
    assert len({bundle.key for bundle in before} - after) == 1
    other = {bundle.key for bundle in bundles_of(objects, None, Preprocessing(), Limits())}
    assert other.isdisjoint({bundle.key for bundle in before})


def test_bundles_are_dealt_by_their_bytes() -> None:
    infos = [storage.ObjectInfo(f"file:///{size}", size, "") for size in (50, 1, 2, 3, 4, 40)]
    todo = [
        (at, Bundle(str(at), (bundles.Wanted(info, "", None),))) for at, info in enumerate(infos)
    ]
    parts = deal_bundles(todo, 4)
    assert [[at for at, _ in part] for part in parts] == [[0], [5], [4, 3, 2, 1]]


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, Labels]:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder, labelled(folder, write(folder, "1.tar", 0, 7))


def test_pictures_are_read_as_an_array_is_indexed(
    archive: tuple[Path, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.reading.SHARD_BYTES", 3 * 32 * 32)  # three shards
    folder, labels = archive
    held = gather(list_images([str(folder)]), labels, SPEC, Limits(), str(tmp_path / "cache"))
    files = sorted((tmp_path / "cache").glob("*.arrow"))
    assert len(files) == 3
    whole = held.images[:]
    with pa.memory_map(str(files[0])) as file:
        column = pa.ipc.open_file(file).get_batch(0).column(shards.COLUMN)
        assert any(column[0].as_py() == picture.tobytes() for picture in whole)
    assert held.images.shape == whole.shape == (7, 32, 32)
    for key in ([6, 0, 0], np.array([-1, 3]), slice(1, 5, 2), whole[:, 0, 0] > 100):
        assert np.array_equal(held.images[key], whole[key])
    assert np.array_equal(held.images[2], whole[2])
    assert np.array_equal(Chosen(held.images, np.array([4, 2]))[np.array([1])], whole[[2]])
    assert [len(part) for part in in_parts(held.images, np.arange(0))] == [0]
    order = [np.array([at, 6 - at]) for at in range(7)]
    read = [*read_batches(held.images, order, ahead=2)]
    assert all(np.array_equal(found, whole[at]) for at, found in read)
    assert [at.tolist() for at, _ in read] == [at.tolist() for at in order]


def test_a_damaged_shard_is_no_picture(archive: tuple[Path, Labels], tmp_path: Path) -> None:
    folder, labels = archive
    held = gather(list_images([str(folder)]), labels, SPEC, Limits(), str(tmp_path / "cache"))
    (shard,) = (tmp_path / "cache").glob("*.arrow")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged: a picture in it"):
        held.images[:]
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match="shorter than it was written|is damaged"):
        held.images[:]


def test_a_damaged_index_is_a_sentence(archive: tuple[Path, Labels], tmp_path: Path) -> None:
    folder, labels = archive
    objects, cache = list_images([str(folder)]), str(tmp_path / "cache")
    gather(objects, labels, SPEC, Limits(), cache)
    (index,) = (tmp_path / "cache").glob("*.parquet")
    whole = pq.read_table(index)
    changed = [whole.drop_columns(["reason"]), whole.replace_schema_metadata(None)]
    for table in changed:
        pq.write_table(table, index)
        with pytest.raises(StorageError, match="is damaged; remove the folder of prepared images"):
            gather(objects, labels, SPEC, Limits(), cache)
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(StorageError, match="is damaged; remove the folder of prepared images"):
        gather(objects, labels, SPEC, Limits(), cache)


def test_a_shard_stays_open_while_it_is_read(
    archive: tuple[Path, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads that open it at the same time, one has a file that is not kept."""
    folder, labels = archive
    held = gather(list_images([str(folder)]), labels, SPEC, Limits(), str(tmp_path / "cache"))
    whole = held.images[:]
    monkeypatch.setattr(shards, "_open", shards._open.__wrapped__)
    assert np.array_equal(held.images[:], whole)


def test_a_cache_in_a_bucket_is_as_one_on_disk(
    archive: tuple[Path, Labels],
    tmp_path: Path,
    bucket: str,
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    folder, labels = archive
    objects = list_images([str(folder)])
    uri = f"s3://{bucket}/cache"
    there = gather(objects, labels, SPEC, Limits(), uri)
    here = gather(objects, labels, SPEC, Limits(), str(tmp_path / "cache"))
    assert np.array_equal(there.images[:], here.images[:])
    assert there.patients_N.tolist() == here.patients_N.tolist() == [0, 0, 1, 1, 2, 2, 3]
    reader = Counting()
    again = gather(objects, labels, SPEC, Limits(), uri, read=reader)
    assert (reader.read, len(again.images)) == ([], 7)


def test_a_cache_that_cannot_be_is_a_users_mistake(
    archive: tuple[Path, Labels], tmp_path: Path
) -> None:
    folder, labels = archive
    objects = list_images([str(folder)])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="for prepared images cannot be made"):
        gather(objects, labels, SPEC, Limits(), str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match="has the scheme 'gs'"):
        gather(objects, labels, SPEC, Limits(), "gs://bucket/cache")


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own settings
def test_ray_reads_what_one_process_reads(
    tmp_path: Path, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "SMALL_BYTES", 0)
    folder = tmp_path / "images"
    folder.mkdir()
    rows = [row for number in range(4) for row in write(folder, f"{number}.tar", 10 * number)]
    rows.append({"archive": "3.tar", "member": "gone.png", "label": "a", "patient": ""})
    objects, labels = list_images([str(folder)]), labelled(folder, rows)
    here = gather(objects, labels, SPEC, Limits(), str(tmp_path / "here"))
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    ray.init(address=ray_cluster.address, log_to_driver=False)
    try:
        counts: list[int] = []
        there = gather(
            *(objects, labels, SPEC, Limits(), str(tmp_path / "there"), counts.append),
            read=read_by_ray,
        )
    finally:
        ray.shutdown()
    assert counts[-1] == 12
    assert np.array_equal(here.images[:], there.images[:])
    assert [*here.places] == [*there.places]
    assert here.excluded == there.excluded
    assert [*here.digests] == [*there.digests]
