"""What the driver of a training holds of a large set: bytes an image, measured at 100,000.

numpy's and Python's memory is counted by tracemalloc, Arrow's by its pool.
"""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits
from training.data.bundles import SMALL_BYTES, bundles_of
from training.data.divide import divide
from training.data.gather import list_images, load_set
from training.data.labelled import LabelledSet, num_missing, reason_counts, write_excluded
from training.data.labels import check_labels
from training.data.reading import INDEX, SHARDS, Recipe, put_index
from training.data.set_report import describe_classes, describe_links
from training.data.trained_on import all_learned, pack_digests
from training.settings import SplitSettings

IMAGES, ARCHIVES = 100_000, 20
EACH = IMAGES // ARCHIVES
SPEC = Preprocessing(size_px=16, trim_borders=False)


@dataclass
class Memory:
    """Bytes of a block of code: what is left of it, and what it took at most."""

    held: int = 0
    peak: int = 0


@contextmanager
def measured() -> Iterator[Memory]:
    """Count what is allocated inside; it slows Python down threefold."""
    found, pool = Memory(), pa.default_memory_pool()
    tracemalloc.start()
    arrow = pool.bytes_allocated()
    try:
        yield found
        held, peak = tracemalloc.get_traced_memory()
        more = max(0, pool.bytes_allocated() - arrow)
        found.held, found.peak = held + more, peak + more
    finally:
        tracemalloc.stop()


def index_of(first: int, left_out: int) -> pa.Table:
    """An index of an archive as reading makes it, of random pictures, each a patient's two."""
    rng, count = np.random.default_rng(first), EACH + left_out

    def values(column: list[object]) -> list[object]:
        return [value if at < EACH else None for at, value in enumerate(column)]

    patients = [f"{number // 2:016}".encode() for number in range(first, first + count)]
    columns = {
        "object": np.zeros(count, np.int32),
        "member": [f"class-{number % 8}/{number}.jpg" for number in range(first, first + count)],
        "index": np.arange(count),
        "reason": pa.array([None if at < EACH else "no_label" for at in range(count)], pa.string()),
        "rows": np.full(count, 64, np.int32),
        "columns": np.full(count, 48 + first % 3, np.int32),
        "digest": pa.array(values([rng.bytes(8) for _ in range(count)]), pa.binary(8)),
        "patient": pa.array(values([*patients]), pa.binary(16)),
        "hash": pa.array(values([rng.bytes(32) for _ in range(count)]), pa.binary(32)),
        "black": rng.random(count, np.float32),
        "sharpness": rng.random(count, np.float32),
        "shard": np.zeros(count, np.int32),
        "row": np.arange(count, dtype=np.int32),
        "crc": np.arange(count, dtype=np.uint32),
    }
    shards = f'[["{first}.arrow", 0]]'
    return pa.table(columns, schema=INDEX.with_metadata({SHARDS: shards}))


def made_set(folder: Path, left_out: int = 0) -> tuple[str, str]:
    """A cache as if a set had been read; returns its archives' folder, which hold nothing."""
    images, cache = folder / "images", folder / "cache"
    images.mkdir(parents=True)
    cache.mkdir()
    for number in range(ARCHIVES):
        with (images / f"{number:02}.tar").open("wb") as archive:
            archive.truncate(SMALL_BYTES + 1)
    recipe = Recipe(SPEC, Limits(), cache.as_uri())
    found = bundles_of(list_images([str(images)]), None, recipe.spec, recipe.limits)
    for number, bundle in enumerate(found):
        put_index(recipe.cache, bundle.key, index_of(number * EACH, left_out))
    return str(images), str(cache)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledSet, Memory]:
    """The set, and the memory that it took to load it."""
    images, cache = made_set(tmp_path_factory.mktemp("large"))
    with measured() as memory:
        labelled = load_set([images], None, SPEC, Limits(), cache)
    return labelled, memory


def test_the_index_takes_less_than_two_hundred_bytes_an_image(
    large: tuple[LabelledSet, Memory],
) -> None:
    labelled, memory = large
    assert len(labelled) == IMAGES
    assert labelled.places_N[70_001] == ("14.tar", "class-1/70001.jpg")
    assert np.bincount(labelled.labels_N).tolist() == [IMAGES // 8] * 8
    assert labelled.patients_N[:4].tolist() == [0, 0, 1, 1]
    assert memory.held < 160 * IMAGES
    assert memory.peak < 400 * IMAGES


@pytest.mark.parametrize("folds", [10])
def test_groups_and_splits_take_no_more_for_many_folds(
    large: tuple[LabelledSet, Memory], folds: int
) -> None:
    labelled, _ = large
    with measured() as memory:
        division = divide(labelled, SplitSettings(folds=folds))
    assert len(division.folds) == folds
    assert memory.held < 40 * IMAGES  # groups and the shipped split are 16, a fold's number is 4
    assert memory.peak < 400 * IMAGES


def test_reports_and_records_hold_no_object_an_image(
    large: tuple[LabelledSet, Memory],
) -> None:
    labelled, _ = large
    division = divide(labelled, SplitSettings())
    with measured() as memory:
        describe_classes(labelled, division)
        describe_links(labelled, division, named=True)
        learned = all_learned(labelled, division.shipped.train_N, frozenset())
    assert learned is not None
    assert len(learned) == len(division.shipped.train_N)
    assert memory.held < 10 * IMAGES
    assert memory.peak < 80 * IMAGES
    with measured() as memory:
        record = pack_digests(learned)
    assert len(record) < 11 * len(learned)
    assert memory.peak < 60 * IMAGES


def test_what_is_left_out_is_held_as_columns(tmp_path: Path) -> None:
    images, cache = made_set(tmp_path, left_out=EACH)
    with measured() as memory:
        labelled = load_set([images], None, SPEC, Limits(), cache)
    assert len(labelled.excluded) == IMAGES
    assert (num_missing(labelled), reason_counts(labelled)) == (0, f"{IMAGES:,} no_label")
    assert memory.held < 220 * IMAGES
    with measured() as memory:
        write_excluded(labelled, tmp_path / "excluded.csv")
    assert memory.peak < 200 * IMAGES
    lines = (tmp_path / "excluded.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == IMAGES + 1
    assert lines[1].replace('"', "") == f"00.tar,class-{EACH % 8}/{EACH}.jpg,no_label"


def test_rows_of_a_labels_file_are_held_as_columns(tmp_path: Path) -> None:
    rows = (
        {
            "archive": f"{number // EACH:02}.tar",
            "member": f"hips/{number}.dcm",
            "label": f"implant {number % 12}",
            "patient": f"patient {number // 2}",
        }
        for number in range(IMAGES)
    )
    with measured() as memory:
        labels = check_labels(rows, (tmp_path / "labels.csv").as_uri())
    assert memory.held < 80 * IMAGES
    assert memory.peak < 160 * IMAGES
    row = labels.by_archive["07.tar"]["hips/35001.dcm"]
    found = row.archive, row.member, row.label, row.patient, row.row
    assert found == ("07.tar", "hips/35001.dcm", "implant 9", "patient 17500", 35_002)
    assert len(labels.by_archive) == ARCHIVES
    assert {len(members) for members in labels.by_archive.values()} == {EACH}
