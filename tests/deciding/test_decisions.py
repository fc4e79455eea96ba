"""The table of decisions: nothing lost or doubled, whoever writes and whenever it is killed."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from implant_model.errors import StorageError, UsageError
from jobs.deciding import decisions as module
from jobs.deciding.decisions import (
    Decision,
    DecisionTable,
    Judgement,
    export_csv,
    export_parquet,
    read_export,
)
from tests.support.paths import ROOT
from tests.support.workbench.decision_samples import decision, undo


def test_decision_comes_back_as_it_was(tmp_path: Path) -> None:
    table = DecisionTable(tmp_path)
    assert list(table.all()) == []
    first = decision(judgement=Judgement.RECORD_WRONG, implant="ä/=x", note="line\nline", minutes=1)
    assert table.append(first)
    assert table.append(undo(first, 2))
    assert not table.append(first), "sent again"
    other = DecisionTable(tmp_path)
    assert list(other.all()) == list(table.all())
    assert other.all()[0] == first
    read = pl.read_delta(str(tmp_path / "decisions"))
    assert sorted(read["kind"].to_list()) == ["reading", "undo"]


def test_table_sees_what_another_has_written(tmp_path: Path) -> None:
    one, other = DecisionTable(tmp_path), DecisionTable(tmp_path)
    for number in range(4):
        (one, other)[number % 2].append(decision(f"c{number}", minutes=number))
        assert len(one.all()) == len(other.all()) == number + 1


def write_many(folder: Path, reader: str) -> None:
    table = DecisionTable(folder)
    for number in range(15):
        table.append(decision(f"c{number}", reader))


def test_two_processes_and_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    DecisionTable(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(tmp_path, name)) for name in ("Ann", "Ben")]
    for worker in workers:
        worker.start()
    table = DecisionTable(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        same = [decision(f"t{number}") for number in range(8)]
        added = list(pool.map(table.append, [*same, *same]))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sum(added) == 8
    found = DecisionTable(tmp_path).all()
    assert len(found) == len({d.id for d in found}) == 2 * 15 + 8


KILLED = """
import sys
from pathlib import Path
from jobs.deciding.decisions import DecisionTable
from tests.support.workbench.decision_samples import decision
table = DecisionTable(Path(sys.argv[1]))
for number in range(10_000):
    made = decision(f"c{number}")
    table.append(made)
    print(made.id, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.15, 0.4, 0.7])
def test_killed_writer_loses_nothing_that_it_confirmed(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        confirmed = [writer.stdout.readline().strip()]
        time.sleep(after_s)
        os.kill(writer.pid, signal.SIGKILL)
        confirmed += writer.stdout.read().split()
    found = [d.id for d in DecisionTable(tmp_path).all()]
    assert len(set(found)) == len(found)
    whole = [number for number in confirmed if len(number) == 32]
    assert set(whole) <= set(found)
    assert len(found) - len(whole) <= 1, "at most the one that was under way"
    assert DecisionTable(tmp_path).append(decision("after"))


def test_many_small_files_are_put_together_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 5)
    running = DecisionTable(tmp_path)
    for number in range(12):
        running.append(decision(f"c{number}", minutes=number))
    before = list(running.all())
    assert list(DecisionTable(tmp_path).all()) == before
    assert list(running.all()) == before, "a server that was running meets the large file"
    running.append(decision("more", minutes=99))
    assert len(DecisionTable(tmp_path).all()) == 13


def test_merge_of_another_computer(tmp_path: Path) -> None:
    here, there = (DecisionTable(tmp_path / name) for name in ("here", "there"))
    shared = decision("shared")
    for table in (here, there):
        table.append(shared)
    own = [decision(f"c{number}", "Ben", number) for number in range(3)]
    there.merge(own)
    export_parquet(tmp_path / "stick.parquet", there.all())
    assert here.merge(read_export(str(tmp_path / "stick.parquet"))) == 3
    assert here.merge(read_export(str(tmp_path / "there"))) == 0, "the same, as a folder"
    assert here.merge(read_export(str(tmp_path / "there" / "decisions"))) == 0
    assert set(here.all()) == {shared, *own}


def test_a_table_that_is_merged_is_found_by_its_content_and_not_written_to(tmp_path: Path) -> None:
    own = [decision(f"c{number}", "Ben", number) for number in range(3)]
    DecisionTable(tmp_path / "there").merge(own)
    folder = (tmp_path / "there" / "decisions").rename(tmp_path / "of-ben")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {found.id for found in read_export(str(folder))} == {one.id for one in own}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "change",
    [
        {"id": "1"},
        {"reader": "\x1b[31m"},
        {"queue": "none"},
        {"judgement": None},
        {"undoes": "a" * 32},
        {"seconds": float("nan")},
        {"model": None},
        {"decided_at": None},
        {"decided_at": datetime(9999, 12, 31, tzinfo=UTC)},
    ],
)
def test_a_row_that_no_workbench_writes_is_not_merged(
    change: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{**decision().to_row(), **change}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no file of decisions"):
        read_export(str(tmp_path / "a.parquet"))


def test_times_without_a_zone_are_those_of_the_export(tmp_path: Path) -> None:
    one = decision()
    naive = {name: getattr(one, name).replace(tzinfo=None) for name in ("begun_at", "decided_at")}
    pq.write_table(pa.Table.from_pylist([{**one.to_row(), **naive}]), tmp_path / "a.parquet")
    assert read_export(str(tmp_path / "a.parquet")) == [one]


def test_file_of_another_kind_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        read_export(str(tmp_path / "none.parquet"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing")
    pl.DataFrame({"id": ["1"]}).write_parquet(tmp_path / "b.parquet")
    for name in ("a", "b"):
        with pytest.raises(UsageError, match="no file of decisions"):
            read_export(str(tmp_path / f"{name}.parquet"))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    DecisionTable(tmp_path).append(decision())
    (file,) = (tmp_path / "decisions").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StorageError, match="is damaged"):
        DecisionTable(tmp_path).all()


def test_a_disk_that_cannot_be_written_is_found_at_once_and_nothing_is_kept(tmp_path: Path) -> None:
    table = DecisionTable(tmp_path)
    (tmp_path / "decisions" / "model=m%400").write_bytes(b"a file where the folder belongs")
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"in 3 attempts\. [^:]+ \(os error \d+\)\.$"):
        table.append(decision())
    assert time.monotonic() - begun < 10, "twenty attempts take half a minute and more"
    assert list(table.all()) == []


def test_csv_runs_no_formula(tmp_path: Path) -> None:
    hostile: Decision = replace(decision(), reader="=cmd()", note="@x", record="+1+2", implant="-x")
    export_csv(tmp_path / "d.csv", [hostile])
    with (tmp_path / "d.csv").open(newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert (row["reader"], row["note"], row["record"]) == ("'=cmd()", "'@x", "'+1+2")
    assert row["images"] == "01.tar 3 (v1)"
