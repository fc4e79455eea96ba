"""The log of a table, followed and written entry by entry, against deltalake's own view of it."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from jobs.tables import delta
from jobs.tables.delta import Action
from jobs.tables.file_statistics import statistics_of
from jobs.tables.schema import PREDICTION_ROW, with_model
from jobs.tables.shared_files import SharedFiles
from jobs.tables.state import table_files
from jobs.tables.state.table_files import TableFiles
from tests.support.object_store import ObjectStore

MODEL = "shoulder@0123456789ab"


class Bench:
    """A table of predictions that is written by hand."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        delta.create_table(uri, with_model(PREDICTION_ROW))
        self.number = 0

    def opened(self) -> DeltaTable:
        table = delta.open_table(self.uri)
        assert table is not None
        return table

    def files(self) -> TableFiles:
        files = TableFiles(self.uri, self.opened(), MODEL, SharedFiles(self.uri).names)
        files.learn_the_rest()
        return files

    def add(self, archives: Iterable[str], model: str = MODEL) -> Action:
        """Put a file of one row an archive."""
        rows = [
            {"archive": name, "archive_version": "v", "member_index": 0, "frame": 0,
             "outcome": "rejected"}
            for name in archives
        ]  # fmt: skip
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(rows, schema=PREDICTION_ROW)
        pq.write_table(table, sink)
        data = bytes(sink.getvalue())
        self.number += 1
        path = f"model={model}/{self.number:04}.parquet"
        storage.put_if_absent(storage.join(self.uri, path), data)
        return delta.add_action(path, len(data), statistics_of(table), model)

    def check(self, files: TableFiles, archives: Iterable[str]) -> None:
        """The files that were followed are those that a reader sees, and hold what they hold."""
        files.follow()
        active = delta.active_files(self.opened(), MODEL)
        assert all(files.find(file["path"]) is not None for file in active)
        held = {file["path"]: SharedFiles(self.uri).held(file) for file in active}
        for archive in archives:
            expected = {path for path, rows in held.items() if (archive, "v") in rows}
            assert {file["path"] for file in files.holding([archive])} == expected
        everything = files.holding([name for rows in held.values() for name, _ in rows])
        assert {file["path"] for file in everything} == held.keys()
        numbers = (files.find(file["path"]) for file in active)
        kept = ("path", "size_bytes", "num_records", "min.archive", "max.archive_version")
        assert [
            {name: files.file(number)[name] for name in kept}
            for number in numbers
            if number is not None
        ] == [{name: file[name] for name in kept} for file in active]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(storage.normalise(str(tmp_path / "table")))


def test_any_order_of_commits_by_several_writers_is_followed(bench: Bench) -> None:
    rng = random.Random(1)
    names = [f"a{number}" for number in range(12)]
    writers = [bench.files(), bench.files()]
    delta.replace_files(bench.opened(), [bench.add(["other"], "another@0123456789ab")])
    for turn in range(40):
        files = rng.choice(writers)
        archives = rng.sample(names, rng.choice((1, 1, 2, 5)))
        kind = rng.choice(("add", "add", "add", "exchange", "deltalake", "compact", "restore"))
        if kind in ("add", "exchange"):

            def work(files: TableFiles = files, archives: list[str] = archives,
                     kind: str = kind) -> list[Action]:  # fmt: skip
                leaving = files.holding(archives[:1]) if kind == "exchange" else []
                removed = [delta.remove_action(file, MODEL) for file in leaving]
                return [*removed, bench.add(archives)]

            files.commit(work)
        elif kind == "deltalake":
            delta.replace_files(bench.opened(), [bench.add(archives)])
        elif kind == "compact":
            bench.opened().optimize.compact()
        elif turn > 4:
            bench.opened().restore(bench.opened().version() - 2)
        bench.check(rng.choice(writers), names)
    assert bench.opened().version() > table_files.CHECKPOINT_EVERY // 4
    assert len(pl.read_delta(storage.uri.local_path(bench.uri))) > 0


def test_commit_that_is_overtaken_is_worked_out_once_more(bench: Bench) -> None:
    files, other = bench.files(), bench.files()
    seen = []

    def work() -> list[Action]:
        seen.append(len(files.holding(["a"])))
        if len(seen) == 1:
            other.commit(lambda: [bench.add(["a"])])
        return [] if files.holding(["a"]) else [bench.add(["a"])]

    files.commit(work)
    assert seen == [0, 1]
    assert len(delta.active_files(bench.opened())) == 1


def test_entry_whose_reply_was_lost_is_not_put_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = storage.put_if_absent

    def lose_the_reply(uri: str, data: bytes) -> bool:
        put(uri, data)
        return False

    files, calls = bench.files(), []

    def work() -> list[Action]:
        calls.append(1)
        return [add]

    add = bench.add(["a"])
    monkeypatch.setattr(storage, "put_if_absent", lose_the_reply)
    files.commit(work)
    assert (len(calls), bench.opened().version()) == (1, 1)


def test_checkpoints_are_made_as_deltalake_makes_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "CHECKPOINT_EVERY", 3)
    files = bench.files()
    for number in range(7):
        files.commit(lambda number=number: [bench.add([f"a{number}"])])  # type: ignore[misc]
    log = Path(storage.uri.local_path(bench.uri)) / "_delta_log"
    assert [path.name for path in sorted(log.glob("*.checkpoint.parquet"))] == [
        f"{version:020}.checkpoint.parquet" for version in (3, 6)
    ]
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 6
    for version in range(6):
        (log / f"{version:020}.json").unlink()
    assert len(delta.active_files(bench.opened())) == 7  # from the checkpoint


def test_table_that_asks_more_of_its_writers_is_refused(bench: Bench) -> None:
    files = bench.files()
    table = bench.opened()
    table.alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    with pytest.raises(UsageError, match="which this software does not write. Restore it"):
        files.follow()
    with pytest.raises(UsageError, match="which this software does not write. Restore it"):
        bench.files()


def test_table_that_may_only_grow_is_refused(bench: Bench) -> None:
    files = bench.files()
    bench.opened().alter.set_table_properties({"delta.appendOnly": "true"})
    with pytest.raises(UsageError, match="append-only"):
        files.follow()
    with pytest.raises(UsageError, match="append-only"):
        bench.files()


@pytest.mark.parametrize("value", ["0", "-3", "often", ""])
def test_checkpoint_interval_that_is_none_is_the_default(bench: Bench, value: str) -> None:
    bench.opened().alter.set_table_properties(
        {"delta.checkpointInterval": value}, raise_if_not_exists=False
    )
    files = bench.files()
    files.commit(lambda: [bench.add(["a"])])
    bench.check(files, ["a"])


def test_log_that_lacks_an_entry_is_refused_and_a_damaged_one_named(bench: Bench) -> None:
    files = bench.files()
    log = Path(storage.uri.local_path(bench.uri)) / "_delta_log"
    (log / f"{1:020}.json").write_text('{"add": {')
    with pytest.raises(StorageError, match="jobs.verify names it"):
        files.follow()
    (log / f"{1:020}.json").rename(log / f"{2:020}.json")
    with pytest.raises(StorageError, match="lacks the entry 1"):
        files.follow()


def test_entries_are_followed_in_object_storage(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    bench = Bench(f"s3://{bucket}/out/predictions")
    files, other = bench.files(), bench.files()
    for number in range(12):
        other.commit(lambda number=number: [bench.add([f"a{number}"])])  # type: ignore[misc]
    bench.check(files, ["a0", "a11"])
