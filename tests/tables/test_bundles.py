"""Small archives that share files: each row once, whatever else happens to its neighbours."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from implant_model import storage
from implant_model.errors import ArchiveStatus
from implant_model.storage.uri import local_path
from jobs.entry.command import INCOMPLETE, OK
from jobs.tables.archive_rows import ArchiveRows, RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import Counts, Failure, Published, Unit
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, is_bundle, unit_id, unit_path
from jobs.tables.unit_files import publish_bundle
from jobs.tables.verification import verify_output
from tests.support.archive_samples import tar_of
from tests.support.pictures import noise_png
from tests.torture.attacks import direct

MODEL = "shoulder@0123456789ab"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
MEMBERS = 2


class Bench:
    """An output whose archives are files of a few letters, published by hand in bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = storage.normalise(str(folder / "out"))
        self.tables = self.run("run-1")
        self.tables.create()

    def run(self, name: str) -> Tables:
        return Tables(self.root, RunIdentity(MODEL, "c0", "0.1.0", name))

    def archive(self, name: str, content: str = "", attempt: int = 0) -> PlannedArchive:
        """The archive as it is, or as `content` makes it."""
        file = self.folder / name
        if content or not file.exists():
            file.write_text(content or name)
        return PlannedArchive(name, storage.stat(storage.normalise(str(file))), attempt)

    def bundle(self, archives: Iterable[PlannedArchive]) -> list[ArchiveResult]:
        """Results whose rows lie in one file."""
        archives = list(archives)
        rows = [row for archive in archives for row in _rows(archive)]
        table = PREDICTION_ROW.empty_table().from_pylist(rows, schema=PREDICTION_ROW)
        receipts = publish_bundle([*map(_unit, archives)], table, self.root)
        return [
            _result(archive, receipt) for archive, receipt in zip(archives, receipts, strict=True)
        ]

    def predictions(self) -> pl.DataFrame:
        rows = pl.read_delta(local_path(storage.join(self.root, "predictions")))
        return rows.sort("archive", "member_index")

    def files(self) -> list[str]:
        table = DeltaTable(local_path(storage.join(self.root, "predictions")))
        return [uri.rpartition("/")[2] for uri in table.file_uris()]

    def check(self, names: str) -> None:
        """Each archive's rows are there once, and everything is accounted for."""
        rows = self.predictions()
        assert rows["archive"].to_list() == [name for name in names for _ in range(MEMBERS)]
        assert rows["member_index"].to_list() == [*range(MEMBERS)] * len(names)
        assert verify_output(self.root).findings == ()
        records = self.run("later").records()
        assert {n for n, v in records.items() if any(r.has_rows for r in v.values())} >= set(names)


def _unit(archive: PlannedArchive) -> Unit:
    version = archive.info.version
    unit = unit_id(archive.name, version, MODEL, "c0", archive.attempt, 0)
    return Unit(0, archive.name, version, 0, MEMBERS, 0, unit_path(MODEL, unit))


def _rows(archive: PlannedArchive) -> list[dict[str, object]]:
    same = {
        "archive": archive.name,
        "archive_version": archive.info.version,
        "frame": 0,
        "outcome": "rejected",
        "reason": "empty",
    }
    return [{**same, "member_index": index} for index in range(MEMBERS)]


def _result(archive: PlannedArchive, receipt: Published | Failure) -> ArchiveResult:
    assert isinstance(receipt, Published)
    counts = Counts(Counter(rejected=MEMBERS), Counter(empty=MEMBERS))
    return ArchiveResult(
        archive, ArchiveStatus.COMPLETE, None, "", (receipt.file,), counts, NOW, NOW
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def statuses(results: Sequence[ArchiveResult]) -> list[str]:
    return [str(result.status) for result in results]


def test_archives_of_one_bundle_are_one_file(bench: Bench) -> None:
    results = bench.bundle(map(bench.archive, "abc"))
    assert bench.tables.commit(results) == results
    (file,) = bench.files()
    assert is_bundle(file)
    bench.check("abc")
    assert bench.run("run-2").commit(results) == results
    assert len(bench.files()) == 1
    bench.check("abc")


def test_same_bundle_of_another_attempt_is_adopted(bench: Bench) -> None:
    first = bench.bundle(map(bench.archive, "abc"))
    assert bench.bundle(map(bench.archive, "abc")) == first
    (file,) = (bench.folder / "out" / "predictions" / f"model={MODEL}").iterdir()
    file.write_bytes(b"PAR1 no more")
    archives = [*map(bench.archive, "abc")]
    rows = PREDICTION_ROW.empty_table().from_pylist(
        [row for archive in archives for row in _rows(archive)], schema=PREDICTION_ROW
    )
    receipts = publish_bundle([*map(_unit, archives)], rows, bench.root)
    assert all(isinstance(receipt, Failure) for receipt in receipts)
    assert len(receipts) == 3


def test_rows_that_are_not_the_units_are_not_published(bench: Bench) -> None:
    archives = [*map(bench.archive, "ab")]
    rows = PREDICTION_ROW.empty_table().from_pylist(
        [*_rows(archives[0]), *_rows(archives[0])], schema=PREDICTION_ROW
    )
    receipts = publish_bundle([*map(_unit, archives)], rows, bench.root)
    assert all(isinstance(receipt, Failure) for receipt in receipts)
    assert not (bench.folder / "out" / "predictions" / f"model={MODEL}").exists()


def test_new_version_leaves_in_the_commit_in_which_it_enters(bench: Bench) -> None:
    bench.tables.commit(bench.bundle(map(bench.archive, "abc")))
    newer = bench.bundle([bench.archive("b", "newer"), bench.archive("d")])
    bench.run("run-2").commit(newer)
    bench.check("abcd")
    versions = bench.predictions().filter(pl.col("archive") == "b")["archive_version"].unique()
    assert versions.to_list() == [newer[0].archive.info.version]
    for name in "ac":  # until nothing of the first bundle is left
        bench.run("run-3").commit(bench.bundle([bench.archive(name, f"newer {name}")]))
        bench.check("abcd")


def test_second_reading_takes_the_place_of_the_first(bench: Bench) -> None:
    bench.tables.commit(bench.bundle(map(bench.archive, "abc")))
    again = bench.bundle(bench.archive(name, attempt=1) for name in "ab")
    bench.run("run-2").commit(again)
    bench.check("abc")


def test_version_that_was_put_back_has_its_rows_once(bench: Bench) -> None:
    old = bench.archive("a", "old")
    first = bench.bundle([old, bench.archive("b")])
    bench.tables.commit(first)
    bench.run("run-2").commit(bench.bundle([bench.archive("a", "new"), bench.archive("c")]))
    (bench.folder / "a").write_text("old")
    back = bench.bundle([PlannedArchive("a", storage.stat(old.info.uri))])
    bench.run("run-3").commit(back)
    bench.check("abc")


def test_two_runs_that_bundle_otherwise_leave_each_row_once(bench: Bench) -> None:
    one, two = bench.run("run-1"), bench.run("run-2")
    first = bench.bundle(map(bench.archive, "abc"))
    second = bench.bundle(map(bench.archive, "bcd"))
    one.commit(first)
    two.commit(second)
    bench.check("abcd")
    assert statuses(one.commit(first)) == ["complete"] * 3
    bench.check("abcd")
    assert statuses(two.commit(second)) == ["complete"] * 3
    bench.check("abcd")


def test_archive_that_was_overtaken_stays_out_and_its_neighbours_enter(bench: Bench) -> None:
    late = bench.bundle(map(bench.archive, "abc"))
    newer = bench.bundle([bench.archive("a", "newer")])
    bench.run("run-2").commit(newer)
    assert statuses(bench.tables.commit(late)) == ["changed", "complete", "complete"]
    bench.check("abc")
    versions = bench.predictions().filter(pl.col("archive") == "a")["archive_version"].unique()
    assert versions.to_list() == [newer[0].archive.info.version]


def test_part_of_a_bundle_enters_alone_and_the_rest_later(bench: Bench) -> None:
    results = bench.bundle(map(bench.archive, "abc"))
    bench.tables.commit(results[:1])
    bench.check("a")
    bench.tables.commit(results[1:])
    bench.check("abc")


def test_run_that_died_between_the_tables_is_finished_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = bench.bundle(map(bench.archive, "abc"))

    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveRows, "enter", die)
        with pytest.raises(Died):
            bench.tables.commit(results)
    later = bench.run("run-2")
    assert later.records() == {}
    later.commit(bench.bundle(map(bench.archive, "bcd")))
    bench.run("run-3").commit(bench.bundle(map(bench.archive, "a")))
    bench.check("abcd")


def test_archive_that_lost_its_rows_is_planned_and_its_neighbours_are_not(bench: Bench) -> None:
    bench.tables.commit(bench.bundle(map(bench.archive, "ab")))
    bench.tables.commit(bench.bundle(map(bench.archive, "cd")))
    table = DeltaTable(local_path(storage.join(bench.root, "predictions")))
    table.delete("archive = 'a'")
    records = bench.run("run-2").records()
    has_rows = {name: [r.has_rows for r in versions.values()] for name, versions in records.items()}
    assert has_rows == {"a": [False], "b": [True], "c": [True], "d": [True]}
    bench.run("run-2").commit(bench.bundle([bench.archive("a")]))
    bench.run("run-3").create()  # sets the checksum of the other tool's commit
    bench.check("abcd")


def test_damage_of_a_bundle_is_found_once(bench: Bench) -> None:
    bench.tables.commit(bench.bundle(map(bench.archive, "abc")))
    (file,) = bench.files()
    path = bench.folder / "out" / "predictions" / f"model={MODEL}" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (finding,) = verify_output(bench.root).findings
    assert file in finding
    assert "SHA-256 differs" in finding


@pytest.fixture
def call(tmp_path: Path, small_package: Path) -> list[str]:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(7):
        (folder / f"{n}.png").write_bytes(noise_png(n))
    (folder / "small.tar").write_bytes(tar_of({"1.png": noise_png(20), "2.png": b""}))
    large = {f"{n}.png": noise_png(30 + n) for n in range(direct.UNIT_MEMBERS + 1)}
    (folder / "large.tar").write_bytes(tar_of(large))
    return [str(folder), "--output", str(tmp_path / "out"), "--model", str(small_package)]


def test_job_puts_small_things_together(call: list[str], tmp_path: Path) -> None:
    assert direct.classify(call) == OK
    rows = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert rows.height == 7 + 2 + direct.UNIT_MEMBERS + 1
    names = [path.name for path in (tmp_path / "out" / "predictions").glob("model=*/*")]
    assert sum(map(is_bundle, names)) >= 1
    assert len(names) <= 2 + 2  # bundles, and the units of the large one
    output = storage.normalise(str(tmp_path / "out"))
    assert verify_output(output).findings == ()

    (tmp_path / "in" / "3.png").write_bytes(noise_png(99))
    (tmp_path / "in" / "bad.tar").write_bytes(tar_of({"1.png": noise_png(1)})[:600])
    assert direct.classify(call) == INCOMPLETE
    after = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert after.height == rows.height + 1
    assert after.select("archive", "member_index").is_unique().all()
    assert verify_output(output).findings == ()
