"""Reference radiographs beside a package: of it alone, read with suspicion, and no part of it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from implant_model.errors import PackageError
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import (
    FILE,
    FORMAT,
    MAX_ROWS,
    SCHEMA,
    References,
    is_picture,
    load_references,
)
from tests.support.small_package import save_small_package


def picture(size_px: int = 64, value: int = 9) -> bytes:
    return bytes(cv2.imencode(".png", np.full((size_px, size_px), value, np.uint8))[1].tobytes())


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return save_small_package(tmp_path / "package")


def some(package: ModelPackage, count: int = 8) -> References:
    num_features = package.novelty_reference().centres_CF.shape[1]
    features_RF = np.random.default_rng(0).normal(size=(count, num_features)).astype(np.float32)
    pictures = tuple(picture(value=at) for at in range(count))
    return References(
        np.arange(count) % 4, features_RF, pictures, ("a source",) * count, ("CC0",) * count
    )


def write(package: ModelPackage, data: bytes) -> None:
    (Path(package.uri.removeprefix("file://")) / FILE).write_bytes(data)


def test_what_was_written_is_read_and_the_package_stays_the_same(package: ModelPackage) -> None:
    assert load_references(package) is None
    made = some(package)
    write(package, made.to_bytes(package))
    again = load_package(package.uri)
    assert again.id == package.id
    read = load_references(again)
    assert read is not None
    np.testing.assert_array_equal(read.label_R, made.label_R)
    np.testing.assert_array_equal(read.features_RF, made.features_RF)
    assert (read.pictures, read.sources, read.licences) == (
        made.pictures,
        made.sources,
        made.licences,
    )


def test_references_of_another_package_are_refused(package: ModelPackage, tmp_path: Path) -> None:
    other = save_small_package(tmp_path / "other", seed=1)
    write(package, some(other).to_bytes(other))
    with pytest.raises(PackageError, match="of another package"):
        load_references(package)


def edited(package: ModelPackage, *, compression: str = "none", **columns: list[Any]) -> bytes:
    table = pq.read_table(pa.BufferReader(some(package).to_bytes(package)))
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
    file = io.BytesIO()
    pq.write_table(table, file, compression=compression, use_dictionary=False)
    return file.getvalue()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"compression": "zstd"}, "it is compressed"),
        ({"implant": ["depuy"] * 7 + ["nobody's"]}, "an implant that the package does not know"),
        ({"embedding": [b"1234"] * 8}, "an embedding has not"),
        ({"picture": [b"<svg onload=alert(1)>"] * 8}, "no 8-bit grey PNG"),
        ({"picture": [picture(300)] * 8}, "no 8-bit grey PNG"),
        ({"source": ["x" * 5000] * 8}, "a text has more than"),
    ],
)
def test_what_is_not_of_the_form_is_refused(
    columns: dict[str, Any], words: str, package: ModelPackage
) -> None:
    write(package, edited(package, **columns))
    with pytest.raises(PackageError, match=words):
        load_references(package)


def test_values_that_are_not_finite_or_too_many_are_refused(package: ModelPackage) -> None:
    made = some(package)
    made.features_RF[3, 2] = np.nan
    write(package, made.to_bytes(package))
    with pytest.raises(PackageError, match="not finite"):
        load_references(package)
    stated = {"format": FORMAT, "package": package.hash.encode()}
    empty = [pa.array([""] * (MAX_ROWS + 1), field.type) for field in SCHEMA]
    file = io.BytesIO()
    table = pa.Table.from_arrays(empty, schema=SCHEMA.with_metadata(stated))
    pq.write_table(table, file, compression="none", use_dictionary=False)
    write(package, file.getvalue())
    with pytest.raises(PackageError, match="rows; 1 to"):
        load_references(package)


def test_a_damaged_file_is_refused_wherever_it_is_cut(package: ModelPackage) -> None:
    data = some(package).to_bytes(package)
    for end in (0, 4, 100, len(data) // 2, len(data) - 1):
        write(package, data[:end])
        with pytest.raises(PackageError, match="cannot be used"):
            load_references(package)
    broken = bytearray(data)
    generator = np.random.default_rng(1)
    for _ in range(60):
        at = int(generator.integers(len(data)))
        broken[at] ^= 0xFF
        write(package, bytes(broken))
        with contextlib.suppress(PackageError):
            load_references(package)
        broken[at] ^= 0xFF


def test_a_picture_is_grey_of_eight_bits_and_small() -> None:
    assert is_picture(picture(256))
    assert not is_picture(picture(257))
    assert not is_picture(picture()[:20])
    colours = bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    deep = bytes(cv2.imencode(".png", np.zeros((9, 9), np.uint16))[1].tobytes())
    assert not is_picture(colours)
    assert not is_picture(deep)
    assert not is_picture(b"GIF89a" + bytes(40))
