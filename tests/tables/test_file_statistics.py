"""Statistics by which readers pass files over: none loses a row, whichever column it asks for."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from jobs.entry.command import OK
from jobs.tables.file_statistics import MOST_CHARACTERS, statistics_of
from jobs.tables.schema import PREDICTION_ROW
from tests.support.archive_samples import tar_of
from tests.support.pictures import noise_png
from tests.torture.attacks import direct


def test_bounds_hold_what_they_bound() -> None:
    long = "y" * 200
    rows = pa.table(
        {
            "archive": ["a" * 100, "b" * 100],
            "text": [long, None],
            "number": pa.array([0.1, math.inf], pa.float32()),
            "nothing": pa.nulls(2, pa.string()),
            "time": [datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)] * 2,
            "list": [["a"], []],
        }
    )
    found = json.loads(statistics_of(rows))
    least, greatest = found["minValues"], found["maxValues"]
    assert (least["archive"], greatest["archive"]) == ("a" * 100, "b" * 100)
    assert least["text"] <= long <= greatest["text"]
    assert len(greatest["text"]) == MOST_CHARACTERS + 1
    assert least["number"] == pytest.approx(0.1)
    assert greatest["number"] > 3e38
    assert "nothing" not in {**least, **greatest}
    assert (least["time"], found["numRecords"]) == ("2026-01-31T12:00:00.123456Z", 2)
    assert found["nullCount"] == {
        "archive": 0, "text": 1, "number": 0, "nothing": 2, "time": 0
    }  # fmt: skip


def test_every_reader_finds_the_rows_that_all_columns_are_asked_for(
    tmp_path: Path, small_package: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        members = {f"{'long ' * 30}{n}.png": noise_png(n + number) for n in range(4)}
        (tmp_path / "in" / f"{number}.tar").write_bytes(tar_of({**members, "no.png": b"no"}))
    call = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(small_package)]
    assert direct.classify(call) == OK
    place = str(tmp_path / "out" / "predictions")
    expected, dataset = pl.read_delta(place), DeltaTable(place).to_pyarrow_dataset()
    asked = [field for field in PREDICTION_ROW if not pa.types.is_nested(field.type)]
    for field in asked:
        values = expected[field.name].drop_nulls().unique().to_list()
        counts = {value: expected.filter(pl.col(field.name) == value).height for value in values}
        found = {value: count(dataset, pc.field(field.name) == value) for value in values}
        assert found == counts, field.name
        nulls = count(dataset, pc.field(field.name).is_null())
        assert nulls == expected[field.name].null_count(), field.name
    assert count(dataset, pc.field("probability") >= 0) == expected["probability"].count()


def count(dataset: ds.Dataset, wanted: ds.Expression) -> int:
    return int(dataset.count_rows(filter=wanted))
