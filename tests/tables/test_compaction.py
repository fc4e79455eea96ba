"""Our own compaction: fewer files, the same rows, and runs and verification go on as before."""

import json
import os
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from jobs import compact as job
from jobs.entry.command import OK
from jobs.tables import compaction, delta
from jobs.tables.compaction import compact
from jobs.tables.verification import verify_output
from tests.support.archive_samples import tar_of
from tests.support.pictures import noise_png
from tests.support.sample_output import publish_sample
from tests.torture.attacks import direct


@pytest.fixture
def call(tmp_path: Path, small_package: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    for night in range(5):
        write(tmp_path, f"{night}.tar", night)
    call = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(small_package)]
    for _ in range(5):  # five nights of one archive each
        assert direct.classify([*call, "--limit", "1"]) == OK
    return call


def write(folder: Path, name: str, seed: int) -> None:
    (folder / "in" / name).write_bytes(tar_of({"1.png": noise_png(seed), "2.txt": b"no"}))


def tables(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    predictions = pl.read_delta(str(folder / "out" / "predictions"))
    archives = pl.read_delta(str(folder / "out" / "archives")).sort("archive")
    return predictions.sort("archive", "member_index"), archives.drop("units")


def test_small_files_become_one_and_nothing_else_changes(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    before = tables(tmp_path)
    files = sorted(path for path in (tmp_path / "out").rglob("*.parquet"))
    capsys.readouterr()
    assert job.main([output]) == OK
    assert capsys.readouterr().out.splitlines() == [
        "predictions: 5 files before, 1 now.",
        "archives: 5 files before, 1 now.",
    ]
    for old, new in zip(before, tables(tmp_path), strict=True):
        assert new.equals(old)
    assert all(path.exists() for path in files), "nothing is deleted"
    log = sorted((tmp_path / "out" / "predictions" / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log[-1].read_text().splitlines()]
    assert {a[kind]["dataChange"] for a in actions for kind in a if kind in ("add", "remove")} == {
        False
    }
    assert verify_output(output).findings == ()
    assert job.main([output]) == OK, "there is nothing left to do"
    write(tmp_path, "2.tar", 99)
    write(tmp_path, "9.tar", 98)
    assert direct.classify(call) == OK
    rows, archives = tables(tmp_path)
    assert rows.height == 12
    assert archives["members"].sum() == 12
    assert verify_output(output).findings == ()


def test_a_night_with_few_files_is_left_alone(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = storage.normalise(str(tmp_path / "out"))
    versions = [table_version(tmp_path, name) for name in ("predictions", "archives")]
    capsys.readouterr()
    assert job.main([output, "--nightly"]) == OK
    assert capsys.readouterr().out.startswith("predictions: 5 files before, 5 now.")
    assert [table_version(tmp_path, name) for name in ("predictions", "archives")] == versions
    monkeypatch.setattr(compaction, "NIGHTLY_FILES", 5)
    assert job.main([output, "--nightly"]) == OK
    assert capsys.readouterr().out.startswith("predictions: 5 files before, 1 now.")


def table_version(folder: Path, name: str) -> int:
    return DeltaTable(str(folder / "out" / name)).version()


def test_a_changed_byte_of_a_compacted_file_is_found(call: list[str], tmp_path: Path) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    compact(output)
    (uri,) = DeltaTable(str(tmp_path / "out" / "predictions")).file_uris()
    path = Path(uri)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    (finding,) = verify_output(output).findings
    assert path.name in finding
    assert "SHA-256 differs" in finding


def test_vacuum_deletes_what_left_long_ago_and_no_unit_of_a_run_under_way(
    call: list[str], tmp_path: Path
) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    before = tables(tmp_path)
    compact(output)
    long_ago = time.time() - 40 * 86400
    for path in (tmp_path / "out").rglob("*.parquet"):
        os.utime(path, (long_ago, long_ago))
    log = tmp_path / "out" / "predictions" / "_delta_log"
    (model,) = (tmp_path / "out" / "predictions").glob("model=*@*")
    unit = model / f"{'0' * 32}.parquet"
    unit.write_bytes(b"a unit that is in no log yet")
    num_entries = len(list(log.iterdir()))
    with pytest.raises(UsageError, match="7 days or more"):
        compact(output, 6)
    deleted = compact(output, 30)
    assert unit.exists()
    assert len(list(log.iterdir())) >= num_entries
    assert verify_output(output).findings == ()
    for old, new in zip(before, tables(tmp_path), strict=True):
        assert new.equals(old)
    assert [table.after for table in deleted] == [1, 1]
    assert direct.classify(call) == OK
    assert verify_output(output).findings == ()


def test_what_was_vacuumed_is_not_missed(call: list[str], tmp_path: Path) -> None:
    """As thirty days later: all that has left the tables is gone."""
    output = storage.normalise(str(tmp_path / "out"))
    before = tables(tmp_path)
    compact(output)
    for name in ("predictions", "archives"):
        table = DeltaTable(str(tmp_path / "out" / name))
        gone = table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        assert len(gone) == 5
    assert direct.classify(call) == OK  # the next night, with nothing new, sets the checksums
    assert verify_output(output).findings == ()
    for old, new in zip(before, tables(tmp_path), strict=True):
        assert new.equals(old)
    write(tmp_path, "3.tar", 97)
    assert direct.classify(call) == OK
    assert tables(tmp_path)[0].height == 10
    assert verify_output(output).findings == ()


def test_commit_that_came_between_is_tried_again(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run replaces an archive after the compaction has read the table."""
    output = storage.normalise(str(tmp_path / "out"))
    opened, calls = delta.open_table, []

    def late(uri: str) -> DeltaTable | None:
        table = opened(uri)
        calls.append(uri)
        if len(calls) == 2:  # the table that the compaction works on
            monkeypatch.setattr(delta, "open_table", opened)
            write(tmp_path, "0.tar", 50)
            assert direct.classify(call) == OK
        return table

    monkeypatch.setattr(delta, "open_table", late)
    compact(output)
    rows, archives = tables(tmp_path)
    assert rows.height == archives["members"].sum() == 10
    assert verify_output(output).findings == ()
    with pytest.raises(UsageError, match="holds no tables"):
        compact(storage.normalise(str(tmp_path / "none")))


def test_file_that_is_gone_is_a_sentence_and_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried twenty times, for half a minute."""
    output = publish_sample(tmp_path)
    Path(DeltaTable(str(tmp_path / "out" / "predictions")).file_uris()[0]).unlink()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(StorageError, match=r"in 3 attempts\. jobs\.verify names what") as error:
        compact(output)
    assert "\n" not in str(error.value)


def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("predictions", "archives"):
        for number in range(2):
            rows = pa.table({"id": [number], "value": ["theirs"]})
            write_deltalake(str(tmp_path / "out" / name), rows, mode="append")
    with pytest.raises(UsageError, match="predictions lacks the column archive: another tool"):
        compact(storage.normalise(str(tmp_path / "out")))
    assert len(DeltaTable(str(tmp_path / "out" / "archives")).file_uris()) == 2


@pytest.mark.parametrize("days", [-1, 6, 36_501, 10**20])
def test_days_of_a_vacuum_are_bounded(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match=f"is {days}; 7 days or more"):
        compact(storage.normalise(str(tmp_path)), days)
