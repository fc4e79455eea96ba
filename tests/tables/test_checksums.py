"""Checksums of the tables: what they find, and that a run sets what is missing."""

import itertools
from pathlib import Path

import pytest
from deltalake import DeltaTable

from implant_model import storage
from implant_model.errors import StorageError
from implant_model.storage.uri import local_path
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.checksums import ChecksumReport, Checksums, check_checksums
from jobs.tables.publish import Tables
from jobs.tables.verification import verify_output
from tests.support.sample_output import MODEL, OTHER_MODEL, publish_sample


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Four entries of each log, all with checksums: table, schema version, two commits of rows."""
    publish_sample(tmp_path)
    return publish_sample(tmp_path, OTHER_MODEL)


def checksums_of(output: str, table: str) -> list[Path]:
    return sorted(Path(local_path(output)).joinpath("_seals", table).iterdir())


def test_each_commit_has_one_checksum_file(output: str) -> None:
    for table in ("predictions", "archives"):
        assert [path.stem for path in checksums_of(output, table)] == [f"{n:020}" for n in range(4)]
    before = {path: path.read_bytes() for path in checksums_of(output, "archives")}
    Checksums(output).write()
    assert {path: path.read_bytes() for path in checksums_of(output, "archives")} == before
    assert check_checksums(output) == ChecksumReport((), ())


@pytest.mark.parametrize("lost", [[3], [2, 3], [0, 1, 2, 3]])
def test_seals_that_a_dead_run_left_out_are_named_and_then_set(
    output: str, lost: list[int]
) -> None:
    checksums = checksums_of(output, "archives")
    for version in lost:
        checksums[version].unlink()
    findings = verify_output(output).findings
    assert len(findings) == len(lost)
    assert all(checksums[n].name in finding for n, finding in zip(lost, findings, strict=True))
    Tables(output, RunIdentity(MODEL, "c0", "0.1.0", "run-2")).write_checksums()
    assert checksums_of(output, "archives") == checksums
    assert verify_output(output).findings == ()


def test_checksum_file_that_is_gone_amid_others_is_not_called_that_of_a_dead_run(
    output: str,
) -> None:
    checksums_of(output, "archives")[1].unlink()
    tables = Tables(output, RunIdentity(MODEL, "c0", "0.1.0", "run-2"))
    tables.write_checksums()
    (finding,) = verify_output(output).findings
    assert "later entries have theirs, so it was removed or damaged" in finding
    seals = Path(local_path(output), "_seals")
    seals.rename(seals.with_name("_seals-before"))
    Tables(output, tables.identity).write_checksums()
    assert verify_output(output).findings == ()


def test_a_bit_that_flips_on_the_way_is_not_recorded(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in checksums_of(output, "archives"):
        path.unlink()
    read, flips = storage.read_bytes, iter([True, False, False, True])

    def read_bytes(uri: str) -> bytes:
        data = read(uri)
        wrong = uri.endswith(".parquet") and next(flips, False)
        return bytes([data[0] ^ 1]) + data[1:] if wrong else data

    monkeypatch.setattr(storage, "read_bytes", read_bytes)
    Checksums(output).write()
    monkeypatch.undo()
    assert check_checksums(output) == ChecksumReport((), ())


def test_a_file_that_reads_differently_each_time_is_not_recorded(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in checksums_of(output, "archives"):
        path.unlink()
    read, numbers = storage.read_bytes, itertools.count()

    def read_bytes(uri: str) -> bytes:
        return read(uri) + b"%d" % next(numbers) * uri.endswith(".parquet")

    monkeypatch.setattr(storage, "read_bytes", read_bytes)
    with pytest.raises(StorageError, match="reads differently each time"):
        Checksums(output).write()


def test_entry_of_the_log_that_is_gone_is_named(output: str) -> None:
    entry = Path(local_path(output), "predictions", "_delta_log", f"{1:020}.json")
    entry.unlink()
    assert any(f"{entry.name}: it is gone" in line for line in verify_output(output).findings)


def test_checkpoint_is_recorded_with_its_version(output: str) -> None:
    table = Path(local_path(output), "archives")
    checksums_of(output, "archives")[3].unlink()
    DeltaTable(str(table)).create_checkpoint()
    Checksums(output).write()
    assert verify_output(output).findings == ()
    for name in (f"{3:020}.checkpoint.parquet", "_last_checkpoint"):
        path = table / "_delta_log" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
        assert any(name in line for line in check_checksums(output).damaged)
        path.write_bytes(whole)
    assert check_checksums(output) == ChecksumReport((), ())


def tables_of(output: str) -> list[DeltaTable]:
    return [DeltaTable(str(Path(local_path(output), name))) for name in ("predictions", "archives")]


def test_file_that_was_vacuumed_before_its_entry_was_recorded_is_not_missed(output: str) -> None:
    for table in tables_of(output):
        table.optimize.compact()
        table.optimize.z_order(["archive"])
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    Checksums(output).write()
    assert verify_output(output).findings == ()
    for table in tables_of(output):
        for uri in table.file_uris():
            path = Path(uri)
            path.write_bytes(path.read_bytes() + b"x")
    assert len(check_checksums(output).damaged) == 4, "what is there is recorded"


def test_pointer_to_a_checkpoint_that_another_tool_made_is_none_of_ours(output: str) -> None:
    for table in tables_of(output):
        table.alter.set_table_properties({"delta.checkpointInterval": "1"})
        table.optimize.compact()
    Checksums(output).write()
    for table in tables_of(output):
        table.alter.set_table_properties({"delta.checkpointInterval": "100"})
    Checksums(output).write()
    for table in tables_of(output):
        table.create_checkpoint()
    assert verify_output(output).findings == ()
    pointer = Path(local_path(output), "archives", "_delta_log", "_last_checkpoint")
    pointer.write_bytes(b'{"version')
    (finding,) = verify_output(output).findings
    assert finding.startswith("archives/_delta_log/_last_checkpoint: its bytes are not")
    pointer.unlink()
    (finding,) = verify_output(output).findings
    assert finding == "archives/_delta_log/_last_checkpoint: it is gone."


def test_entries_that_delta_has_cleaned_up_are_not_missed(output: str) -> None:
    for table in tables_of(output):
        table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
        table.create_checkpoint()
        table.cleanup_metadata()
    Checksums(output).write()
    log = Path(local_path(output), "predictions", "_delta_log")
    assert not (log / f"{0:020}.json").exists()
    assert verify_output(output).findings == ()
    (entry,) = log.glob("*.json")
    entry.write_bytes(entry.read_bytes() + b"\n")
    assert any(f"{entry.name}: its bytes" in line for line in verify_output(output).findings)
