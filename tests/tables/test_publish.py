import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from implant_model import storage
from implant_model.errors import ArchiveReason, ArchiveStatus, StorageError
from implant_model.storage.uri import ObjectInfo, local_path
from jobs.auditing.output import open_output
from jobs.pages.run_facts import read_facts
from jobs.pipeline.plan import make_plan
from jobs.tables import delta
from jobs.tables.archive_rows import ArchiveRows, RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import Counts, Failure, Published, Unit, UnitFile
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, unit_id, unit_path
from jobs.tables.unit_files import publish_unit
from jobs.tables.verification import verify_output
from tests.support.sample_output import MODEL as SAMPLE_MODEL
from tests.support.sample_output import publish_sample

MODEL = "shoulder@0123456789ab"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
ODD_NAME = 'it\'s "2026"/Röntgen 100% + \\x.tar'


class Output:
    """An output with one source archive, whose results are published by hand."""

    def __init__(self, folder: Path) -> None:
        self.root = storage.normalise(str(folder / "out"))
        self.source = folder / "a.tar"
        self.tables = self.run("run-1")
        self.tables.create()

    def run(self, name: str) -> Tables:
        return Tables(self.root, RunIdentity(MODEL, "c0", "0.1.0", name))

    def archive(self, content: str, name: str = ODD_NAME, attempt: int = 0) -> PlannedArchive:
        self.source.write_text(content)
        info = storage.stat(storage.normalise(str(self.source)))
        return PlannedArchive(name, info, attempt)

    def result(
        self,
        archive: PlannedArchive,
        sizes: tuple[int, ...] = (3, 2),
        status: ArchiveStatus = ArchiveStatus.COMPLETE,
        reason: ArchiveReason | None = None,
    ) -> ArchiveResult:
        units, first = [], 0
        for size in sizes:
            units.append(self._publish_unit(archive, first, size))
            first += size
        counts = Counts(Counter(rejected=first), Counter(empty=first)) if first else Counts()
        return ArchiveResult(archive, status, reason, "", tuple(units), counts, NOW, NOW)

    def _publish_unit(self, archive: PlannedArchive, first: int, size: int) -> UnitFile:
        version = archive.info.version
        path = unit_path(MODEL, unit_id(archive.name, version, MODEL, "c0", archive.attempt, first))
        unit = Unit(0, archive.name, version, first, size, 0, path)
        rows = PREDICTION_ROW.empty_table().from_pylist(
            [
                {
                    "archive": archive.name,
                    "archive_version": version,
                    "member_index": index,
                    "frame": 0,
                    "outcome": "rejected",
                    "reason": "empty",
                }
                for index in range(first, first + size)
            ],
            schema=PREDICTION_ROW,
        )
        receipt = publish_unit(unit, rows, self.root)
        assert isinstance(receipt, Published)
        return receipt.file

    def predictions(self) -> pl.DataFrame:
        return pl.read_delta(local_path(storage.join(self.root, "predictions")))

    def archives(self) -> pl.DataFrame:
        return pl.read_delta(local_path(storage.join(self.root, "archives")))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def test_publishing_one_result_often_gives_its_rows_once(output: Output) -> None:
    result = output.result(output.archive("one"))
    for run in ("run-1", "run-2", "run-1"):
        assert output.run(run).commit([result]) == [result]
    assert output.predictions()["member_index"].sort().to_list() == [0, 1, 2, 3, 4]
    assert output.archives()["members"].to_list() == [5]
    assert verify_output(output.root).findings == ()


def test_new_version_takes_the_place_of_the_old_one(output: Output) -> None:
    output.tables.commit([output.result(output.archive("one"))])
    newer = output.result(output.archive("newer"), sizes=(4,))
    assert output.tables.commit([newer])[0].status is ArchiveStatus.COMPLETE
    assert output.predictions()["archive_version"].unique().to_list() == [
        newer.archive.info.version
    ]
    assert output.archives()["members"].to_list() == [4]
    assert verify_output(output.root).findings == ()


def test_late_result_of_an_old_version_does_not_undo_the_new_one(output: Output) -> None:
    old = output.result(output.archive("one"))
    newer = output.result(output.archive("newer"), sizes=(4,))
    output.run("run-2").commit([newer])
    assert [result.status for result in output.tables.commit([old])] == [ArchiveStatus.CHANGED]
    assert output.predictions().height == 4
    report = verify_output(output.root)
    assert report.findings == ()
    statuses = dict(zip(*output.archives()[["archive_version", "status"]], strict=True))
    assert statuses[newer.archive.info.version] == "complete"


def test_failed_reading_leaves_the_rows_of_an_earlier_one(output: Output) -> None:
    archive = output.archive("one")
    output.tables.commit([output.result(archive)])
    failed = output.result(archive, (), ArchiveStatus.FAILED, ArchiveReason.STORAGE_ERROR)
    output.tables.commit([failed])
    assert output.predictions().height == 5
    assert output.archives()["status"].to_list() == ["complete"]


def test_missing_archive_gets_a_row_beside_its_older_version(output: Output) -> None:
    output.tables.commit([output.result(output.archive("one"))])
    lost = PlannedArchive(ODD_NAME, ObjectInfo("file:///gone", 0, ""), 0, ArchiveReason.NOT_FOUND)
    result = output.result(lost, (), ArchiveStatus.FAILED, ArchiveReason.NOT_FOUND)
    output.tables.commit([result])
    assert sorted(output.archives()["status"].to_list()) == ["complete", "failed"]
    assert output.predictions().height == 5
    output.tables.commit([output.result(output.archive("back"))])
    assert output.archives()["status"].to_list() == ["complete"]


def test_run_cut_off_between_the_tables_is_mended_by_the_next(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = output.result(output.archive("one"))
    with monkeypatch.context() as patch:
        patch.setattr(ArchiveRows, "enter", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            output.tables.commit([result])
    assert "no row of the table archives names it" in verify_output(output.root).findings[0]
    output.run("run-2").commit([result])
    assert verify_output(output.root).findings == ()


def test_compaction_between_the_two_tables_takes_nothing_from_an_archive_of_several_units(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended as `changed`, and its rows without a row of `archives`."""
    enter = ArchiveRows.enter

    def late(self: ArchiveRows, look: Callable[[], list[ArchiveResult]]) -> list[ArchiveResult]:
        DeltaTable(local_path(storage.join(output.root, "predictions"))).optimize.compact()
        return enter(self, look)

    monkeypatch.setattr(ArchiveRows, "enter", late)
    result = output.result(output.archive("one"))
    assert output.tables.commit([result]) == [result]
    assert output.archives()["members"].to_list() == [5]
    assert verify_output(output.root).findings == ()


def test_archive_put_back_after_a_run_that_died_is_published_again(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = output.result(output.archive("one", name="a.tar"))
    output.tables.commit([first])
    written_at = output.source.stat().st_mtime_ns
    newer = output.result(output.archive("newer", name="a.tar"), sizes=(4,))
    with monkeypatch.context() as patch:
        patch.setattr(ArchiveRows, "enter", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            output.run("run-2").commit([newer])
    output.source.write_text("one")
    os.utime(output.source, ns=(written_at, written_at))

    source = storage.normalise(str(output.source))
    plan = make_plan([source], output.tables.records())
    assert list(plan.todo) == [first.archive]
    output.run("run-3").commit([first])
    assert verify_output(output.root).findings == ()
    assert output.predictions().height == 5
    assert not make_plan([source], output.tables.records()).todo


def test_runs_that_race_lose_and_double_nothing(output: Output) -> None:
    results = [
        output.result(output.archive("one", name=f"{n}.tar"), sizes=(n + 1,)) for n in range(6)
    ]
    runs = [output.run(f"run-{n}") for n in range(3)]
    threads = [
        threading.Thread(target=lambda r=run: [r.commit([result]) for result in results])
        for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert output.predictions().height == sum(range(1, 7))
    assert output.archives().height == 6
    assert verify_output(output.root).findings == ()


def test_flipped_byte_is_named(output: Output) -> None:
    result = output.result(output.archive("one"))
    output.tables.commit([result])
    path = result.units[1].path
    file = Path(local_path(storage.join(output.root, "predictions", path)))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    findings = verify_output(output.root).findings
    assert any(path in finding and "SHA-256" in finding for finding in findings)


def test_unit_is_never_overwritten(output: Output) -> None:
    archive = output.archive("one")
    result = output.result(archive, sizes=(3,))
    path = result.units[0].path
    unit = Unit(0, archive.name, archive.info.version, 0, 4, 0, path)
    receipt = publish_unit(unit, PREDICTION_ROW.empty_table(), output.root)
    assert isinstance(receipt, Failure)
    assert "members 0 to 3" in receipt.message


def test_table_that_is_gone_is_a_sentence(output: Output, tmp_path: Path) -> None:
    from implant_model.errors import StorageError

    with pytest.raises(StorageError, match="is not there any more"):
        delta.commit(storage.normalise(str(tmp_path / "none")), lambda table: None)


def test_output_without_any_rows_of_predictions_is_read(output: Output) -> None:
    """A night whose archives all failed leaves rows of `archives` alone."""
    failed = replace(
        output.result(output.archive("one")),
        status=ArchiveStatus.FAILED, reason=ArchiveReason.CORRUPT, units=(), counts=Counts(),
    )  # fmt: skip
    output.tables.commit([failed])
    (record,) = output.tables.records()[failed.archive.name].values()
    assert (record.status, record.members, record.has_rows) == (ArchiveStatus.FAILED, 0, True)


def test_readers_of_a_file_that_is_gone_get_a_sentence(tmp_path: Path) -> None:
    """Reports, audits and structured reports ended in pyarrow's traceback."""
    out = publish_sample(tmp_path)
    predictions, _ = delta.open_tables(out)
    rows = delta.Rows(predictions)
    assert rows.to_table(["archive"], pc.field("outcome") == "identified").num_rows == 7
    Path(predictions.file_uris()[0]).unlink()
    for read in (
        lambda: rows.to_table(["archive"], pc.field("outcome") == "identified"),
        lambda: [*rows.to_batches(["archive"])],
        lambda: read_facts(out, SAMPLE_MODEL),
        lambda: [*open_output(out, None).batches(["archive"])],
    ):
        with pytest.raises(StorageError, match=r"predictions/ cannot be read .*jobs\.verify names"):
            read()
