"""Outputs of older releases: read, verified, continued and queried by this one.

`output_0_1_0` was made by commit b9eb25b, see make_output_0_1_0.py: schema version 1, no decode
version, a package of format 1.
"""

import os
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import StorageError, UsageError
from implant_model.package.load import load_package
from jobs.entry.command import OK
from jobs.pipeline import recipe as recipe_module
from jobs.tables import delta, publish, schema, unit_files
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import Failure, Published, Unit
from jobs.tables.schema import PREDICTION_ROW, SCHEMA_PROPERTY, SCHEMA_VERSION, prediction_row
from jobs.tables.unit_files import publish_unit
from jobs.tables.verification import verify_output
from tests.support.ray_cluster import without_cluster
from tests.torture.attacks import direct

OLD = Path(__file__).parent / "output_0_1_0"
MTIME_NS = 1_764_000_000_000_000_000


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old output with its archives and its package."""
    shutil.copytree(OLD, tmp_path / "old")
    for file in (tmp_path / "old" / "in").iterdir():
        os.utime(file, ns=(MTIME_NS, MTIME_NS))
    return tmp_path / "old"


def call(old: Path, *more: str) -> list[str]:
    names = [str(old / "in"), "--output", str(old / "out"), "--model", str(old / "package")]
    return [*names, *more]


def rows_of(old: Path) -> pl.DataFrame:
    return pl.read_delta(str(old / "out" / "predictions"))


def test_old_output_is_whole_by_the_schema_that_it_was_written_under(old: Path) -> None:
    report = verify_output(storage.normalise(str(old / "out")))
    assert report.findings == ()
    assert (report.archives, report.files, report.rows) == (3, 3, 7)


def test_dry_run_tells_what_an_older_decode_has_read(old: Path) -> None:
    before = sorted(path for path in (old / "out").rglob("*"))
    done = without_cluster("jobs.classify", *call(old, "--dry-run"))
    assert done.returncode == OK, done.stderr
    assert "To do: 0 archives" in done.stdout
    assert (
        f"3 archives were read by decode version 1 (this is version {DECODE_VERSION}); "
        "--redo-older reads them again."
    ) in done.stdout
    assert sorted(path for path in (old / "out").rglob("*")) == before


def test_dry_run_counts_what_redo_older_would_read(old: Path) -> None:
    done = without_cluster("jobs.classify", *call(old, "--dry-run", "--redo-older"))
    assert "To do: 3 archives" in done.stdout
    assert "decode version 1" not in done.stdout


def test_old_output_is_continued_and_what_it_held_stands(old: Path) -> None:
    before = rows_of(old)
    shutil.copy(old / "in" / "4.png", old / "in" / "5.png")
    assert direct.classify(call(old)) == OK
    rows = rows_of(old)
    assert rows.height == 8
    assert (
        rows.filter(pl.col("archive").is_in(before["archive"].implode()))
        .select(before.columns)
        .sort("archive", "member_index")
        .equals(before.sort("archive", "member_index"))
    )
    assert "4.png" in set(rows["archive"])  # its name is kept
    assert "5.png" not in set(rows["archive"])  # a new one is keyed
    archives = pl.read_delta(str(old / "out" / "archives")).sort("archive")
    assert archives["decode_version"].to_list() == [None, None, None, DECODE_VERSION]
    table = DeltaTable(str(old / "out" / "archives"))
    assert table.metadata().configuration[SCHEMA_PROPERTY] == str(SCHEMA_VERSION)
    assert verify_output(storage.normalise(str(old / "out"))).findings == ()


def test_redo_older_replaces_each_row_by_one_of_this_decode(old: Path) -> None:
    before = rows_of(old)
    assert direct.classify(call(old, "--redo-older")) == OK
    rows = rows_of(old)
    assert rows.height == before.height
    keys = ["archive", "member_index", "outcome", "reason"]
    assert rows.select(keys).sort(keys).equals(before.select(keys).sort(keys))
    archives = pl.read_delta(str(old / "out" / "archives"))
    assert set(archives["decode_version"]) == {DECODE_VERSION}
    assert verify_output(storage.normalise(str(old / "out"))).findings == ()
    done = without_cluster("jobs.classify", *call(old, "--dry-run", "--redo-older"))
    assert "To do: 0 archives" in done.stdout


def test_package_of_the_last_format_loads(old: Path) -> None:
    package = load_package(str(old / "package"))
    assert package.manifest.decode_version == 1
    assert package.manifest.to_bytes() != (old / "package" / "package.json").read_bytes()


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> pa.Schema:
    """A release that has added the column `quality` to the predictions, under the next version."""
    wider = PREDICTION_ROW.append(pa.field("quality", pa.float32()))
    monkeypatch.setitem(schema._ADDED, "quality", SCHEMA_VERSION + 1)
    for module in (schema, publish):
        monkeypatch.setattr(module, "PREDICTION_ROW", wider)
    for module in (schema, publish, unit_files, recipe_module):
        monkeypatch.setattr(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    return wider


def test_column_is_added_by_one_commit_and_both_generations_verify(
    old: Path, next_release: pa.Schema
) -> None:
    output = storage.normalise(str(old / "out"))
    uri = str(old / "out" / "predictions")
    version = DeltaTable(uri).version()
    tables = Tables(output, RunIdentity("old@d3decb8ed65e", "c0", "next", "run"))
    tables.create()
    table = DeltaTable(uri)
    assert "quality" in {field.name for field in table.schema().fields}
    assert table.version() == version + 2  # the column, and the version of the schema
    tables.create()
    assert DeltaTable(uri).version() == version + 2

    path = "model=old@d3decb8ed65e/" + "0" * 32 + ".parquet"
    unit = Unit(0, "new.tar", "v", 0, 1, 9, path)
    row = {"archive": "new.tar", "archive_version": "v", "member_index": 0, "frame": 0}
    rows = pa.Table.from_pylist(
        [{**row, "outcome": "unknown", "quality": 0.5}], schema=next_release
    )
    receipt = publish_unit(unit, rows, output)
    assert isinstance(receipt, Published), receipt
    file = receipt.file
    add = delta.add_action(path, file.bytes, file.statistics, "old@d3decb8ed65e")
    delta.commit(str(old / "out" / "predictions"), lambda t: delta.replace_files(t, [add]))

    qualities = rows_of(old).sort("archive")["quality"].to_list()
    assert qualities == [None] * 7 + [0.5]
    files = DeltaTable(uri).file_uris()
    by_duckdb = duckdb.read_parquet(files, hive_partitioning=True, union_by_name=True).pl()
    assert (by_duckdb.height, by_duckdb["quality"].count()) == (8, 1)
    tables.write_checksums()
    (finding,) = verify_output(output).findings  # this test enters no row of `archives`
    assert path in finding
    assert "no row of the table archives names it" in finding


def test_unit_with_columns_of_another_version_is_refused(
    tmp_path: Path, next_release: pa.Schema
) -> None:
    """A file that names the new version has to have its columns; a file of the old one, its own."""
    unit = Unit(0, "a.tar", "v", 0, 1, 9, "model=m/u.parquet")
    row = {"archive": "a.tar", "archive_version": "v", "member_index": 0, "frame": 0}
    rows = pa.Table.from_pylist(
        [{**row, "outcome": "unknown"}], schema=prediction_row(SCHEMA_VERSION)
    )
    assert isinstance(publish_unit(unit, rows, storage.normalise(str(tmp_path))), Failure)
    unit_files.check_unit(rows, unit, SCHEMA_VERSION)
    with pytest.raises(StorageError, match="each once; the unit is not published"):
        unit_files.check_unit(rows, unit, SCHEMA_VERSION + 1)


def test_reader_of_the_old_schema_still_reads(old: Path, next_release: pa.Schema) -> None:
    Tables(storage.normalise(str(old / "out")), RunIdentity("m", "c", "next", "run")).create()
    table = DeltaTable(str(old / "out" / "predictions")).to_pyarrow_dataset()
    assert table.to_table(columns=prediction_row(1).names).num_rows == 7


def test_output_of_a_newer_release_is_refused_in_one_sentence(old: Path) -> None:
    uri = str(old / "out" / "archives")
    newer = {SCHEMA_PROPERTY: str(SCHEMA_VERSION + 1)}
    DeltaTable(uri).alter.set_table_properties(newer, raise_if_not_exists=False)
    tables = Tables(storage.normalise(str(old / "out")), RunIdentity("m", "c", "1", "run"))
    with pytest.raises(UsageError, match=r"has schema version \d+; this software writes version"):
        tables.create()


def test_column_that_another_tool_has_added_stays(old: Path) -> None:
    for name in ("archives", "predictions"):
        table = DeltaTable(str(old / "out" / name))
        delta_field = Field.from_arrow(pa.field("reviewed_by", pa.string()))
        table.alter.add_columns([delta_field])
    shutil.copy(old / "in" / "4.png", old / "in" / "5.png")
    assert direct.classify(call(old)) == OK
    for name in ("archives", "predictions"):
        assert "reviewed_by" in pl.read_delta(str(old / "out" / name)).columns
    assert verify_output(storage.normalise(str(old / "out"))).findings == ()


def test_unit_files_name_their_schema(old: Path) -> None:
    shutil.copy(old / "in" / "4.png", old / "in" / "5.png")
    assert direct.classify(call(old)) == OK
    names = {
        schema.version_of(pq.read_schema(file))
        for file in (old / "out" / "predictions").rglob("*.parquet")
        if "checkpoint" not in file.name
    }
    assert names == {1, SCHEMA_VERSION}
