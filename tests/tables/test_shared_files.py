"""Maintenance by Delta's own commands: the next run doubles and loses nothing."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.schema import PrimitiveType

from implant_model import storage
from implant_model.errors import UsageError
from jobs.entry.command import OK
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.compaction import compact
from jobs.tables.publish import Tables
from jobs.tables.verification import verify_output
from tests.support.archive_samples import tar_of
from tests.support.object_store import ObjectStore
from tests.support.pictures import noise_png
from tests.support.sample_output import MODEL, publish_sample
from tests.torture.attacks import direct

Maintain = Callable[[DeltaTable], object]
MAINTENANCE: dict[str, Maintain] = {
    "compact": lambda table: table.optimize.compact(),
    "z_order": lambda table: table.optimize.z_order(["implant", "archive"]),
    "vacuum": lambda table: table.vacuum(dry_run=False),
    "checkpoint": lambda table: table.create_checkpoint(),
    "column": lambda table: table.alter.add_columns(Field("note", PrimitiveType("string"))),
    "properties": lambda table: table.alter.set_table_properties({"delta.appendOnly": "false"}),
    "compact twice": lambda table: (table.optimize.compact(), table.optimize.compact()),
}


@pytest.fixture
def call(tmp_path: Path, small_package: Path) -> list[str]:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c" * 60):  # longer than the statistics of other writers
        members = {f"{n}.png": noise_png(n) for n in range(4)}
        (folder / f"{name}.tar").write_bytes(tar_of(members))
    (folder / "loose.png").write_bytes(noise_png(9))
    return [str(folder), "--output", str(tmp_path / "out"), "--model", str(small_package)]


def table_of(folder: Path) -> DeltaTable:
    return DeltaTable(str(folder / "out" / "predictions"))


def rows_of(folder: Path) -> pl.DataFrame:
    rows = pl.read_delta(str(folder / "out" / "predictions"))
    return rows.sort("archive", "archive_version", "member_index")


def check(folder: Path) -> None:
    """All is accounted for, once the next run has set the checksums of others' commits."""
    assert verify_output(storage.normalise(str(folder / "out"))).findings == ()


@pytest.mark.parametrize("what", MAINTENANCE)
def test_next_night_does_nothing_and_doubles_nothing(
    what: str, call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert direct.classify(call) == OK
    before = rows_of(tmp_path)
    MAINTENANCE[what](table_of(tmp_path))
    if "compact" in what or what == "z_order":
        assert len(table_of(tmp_path).file_uris()) == 1
    capsys.readouterr()
    assert direct.classify(call) == OK
    assert "images" not in capsys.readouterr().err, "something was read again"
    assert rows_of(tmp_path)[before.columns].equals(before)
    check(tmp_path)


def test_column_of_another_tool_stays_through_runs_and_compactions(
    call: list[str], tmp_path: Path
) -> None:
    assert direct.classify(call) == OK
    MAINTENANCE["column"](table_of(tmp_path))
    table_of(tmp_path).update({"note": "'seen'"})
    (tmp_path / "in" / "d.tar").write_bytes(tar_of({"0.png": noise_png(20)}))
    (tmp_path / "in" / "b.tar").write_bytes(tar_of({"0.png": noise_png(21)}))
    assert direct.classify(call) == OK
    compact(storage.normalise(str(tmp_path / "out")))
    rows = rows_of(tmp_path)
    assert rows.group_by("archive").len().sort("archive")["len"].to_list() == [4, 1, 4, 1, 1]
    assert set(rows.filter(pl.col("archive").is_in(["a.tar", "loose.png"]))["note"]) == {"seen"}
    assert set(rows.filter(pl.col("archive").is_in(["b.tar", "d.tar"]))["note"]) == {None}
    check(tmp_path)


@pytest.mark.parametrize("what", ["compact", "z_order"])
def test_new_version_takes_out_its_own_rows_alone(
    what: str, call: list[str], tmp_path: Path
) -> None:
    assert direct.classify(call) == OK
    before = rows_of(tmp_path)
    MAINTENANCE[what](table_of(tmp_path))
    (tmp_path / "in" / "b.tar").write_bytes(tar_of({"new.png": noise_png(77)}))
    assert direct.classify(call) == OK
    rows = rows_of(tmp_path)
    others = pl.col("archive") != "b.tar"
    assert rows.filter(others).equals(before.filter(others))
    assert rows.filter(~others).height == 1
    check(tmp_path)
    archives = pl.read_delta(str(tmp_path / "out" / "archives"))
    assert archives["members"].sum() == rows.height
    for name in ("a.tar", "c" * 60 + ".tar"):  # one after the other, until nothing is shared
        (tmp_path / "in" / name).write_bytes(tar_of({"new.png": noise_png(78)}))
        MAINTENANCE[what](table_of(tmp_path))
        assert direct.classify(call) == OK
        assert rows_of(tmp_path).filter(pl.col("archive") == name).height == 1
        check(tmp_path)
    assert rows_of(tmp_path).height == 4


def test_retry_after_compaction_replaces_rows_once(call: list[str], tmp_path: Path) -> None:
    (tmp_path / "in" / "bad.tar").write_bytes(tar_of({"1.png": b"", "2.png": noise_png(5)}))
    assert direct.classify(call) == OK
    before = rows_of(tmp_path)
    table_of(tmp_path).optimize.compact()
    assert direct.classify([*call, "--retry", "empty"]) == OK
    assert rows_of(tmp_path).equals(before)
    check(tmp_path)


@pytest.mark.parametrize("indexed", ["0", "1"])
def test_files_without_statistics_are_read(
    indexed: str, tmp_path: Path, small_package: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    call = [str(folder), "--output", str(tmp_path / "out"), "--model", str(small_package)]
    for night in range(2):
        (folder / "a.tar").write_bytes(tar_of({f"{n}.png": b"%d" % night for n in range(4)}))
        assert direct.classify(call) == OK
        assert rows_of(tmp_path)["member_index"].to_list() == [*range(4)]
        table_of(tmp_path).alter.set_table_properties({"delta.dataSkippingNumIndexedCols": indexed})
        table_of(tmp_path).optimize.compact()


def test_restored_table_is_filled_again(call: list[str], tmp_path: Path) -> None:
    assert direct.classify(call) == OK
    before, version = rows_of(tmp_path), table_of(tmp_path).version()
    (tmp_path / "in" / "d.tar").write_bytes(tar_of({"1.png": noise_png(50)}))
    assert direct.classify(call) == OK
    after = rows_of(tmp_path)
    assert after.height == before.height + 1
    table_of(tmp_path).restore(version)
    assert rows_of(tmp_path).equals(before)
    assert direct.classify(call) == OK
    assert rows_of(tmp_path).equals(after)
    check(tmp_path)


def test_rows_that_another_tool_has_lost_or_doubled_are_found(
    call: list[str], tmp_path: Path
) -> None:
    assert direct.classify(call) == OK
    output = storage.normalise(str(tmp_path / "out"))
    table = table_of(tmp_path)
    table.optimize.compact()
    table.delete("archive = 'a.tar' AND member_index = 2")
    found = verify_output(output).findings
    assert any("the table archives names it, the table predictions not" in one for one in found)
    assert direct.classify(call) == OK
    assert rows_of(tmp_path).filter(pl.col("archive") == "a.tar")["member_index"].to_list() == [
        *range(4)
    ]
    check(tmp_path)


def test_table_that_another_tool_has_changed_is_refused(tmp_path: Path) -> None:
    output = publish_sample(tmp_path)
    archives = DeltaTable(str(tmp_path / "out" / "archives"))
    rows = archives.to_pyarrow_table().drop_columns(["units"])
    write_deltalake(archives, rows, mode="overwrite", schema_mode="overwrite")
    tables = Tables(output, RunIdentity(MODEL, "c0ffee", "0.1.0", "run-2"))
    for work in (tables.records, lambda: verify_output(output)):
        with pytest.raises(UsageError, match="archives lacks the column units: another tool"):
            work()
    archives = DeltaTable(str(tmp_path / "out" / "archives"))
    archives.restore(archives.version() - 1)
    tables.create()
    assert set(tables.records()) == {"01.tar", "cut.tar"}
    check(tmp_path)
    archives = DeltaTable(str(tmp_path / "out" / "archives"))
    archives.alter.set_table_properties({"delta.enableDeletionVectors": "true"})
    with pytest.raises(UsageError, match="deletionVectors.* does not read"):
        verify_output(output)


def test_version_of_the_schema_that_is_no_number_is_the_first(tmp_path: Path) -> None:
    output = publish_sample(tmp_path)
    table_of(tmp_path).alter.set_table_properties(
        {"implant.schemaVersion": "two"}, raise_if_not_exists=False
    )
    Tables(output, RunIdentity(MODEL, "c0ffee", "0.1.0", "run-2")).create()
    assert table_of(tmp_path).metadata().configuration["implant.schemaVersion"] == "2"
    check(tmp_path)


def test_compacted_table_in_a_bucket_is_read_and_taken_apart(
    call: list[str],
    tmp_path: Path,
    object_store: ObjectStore,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There the partition's folder is a part of a key, as another tool has spelt it."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    output = f"s3://{bucket}/out"
    call = [output if word == str(tmp_path / "out") else word for word in call]
    options = {**object_store.environment, "AWS_ALLOW_HTTP": "true"}

    def rows() -> pl.DataFrame:
        table = pl.read_delta(f"{output}/predictions", storage_options=options)
        return table.sort("archive", "member_index")

    assert direct.classify(call) == OK
    before = rows()
    DeltaTable(f"{output}/predictions", storage_options=options).optimize.compact()
    assert direct.classify(call) == OK
    assert rows().equals(before)
    (tmp_path / "in" / "a.tar").write_bytes(tar_of({"new.png": noise_png(77)}))
    assert direct.classify(call) == OK
    assert (
        rows()
        .filter(pl.col("archive") != "a.tar")
        .equals(before.filter(pl.col("archive") != "a.tar"))
    )
    assert rows().filter(pl.col("archive") == "a.tar").height == 1
    assert verify_output(output).findings == ()
