"""The audit trail: each run is in it, and what is done to it later is found."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import ArchiveStatus
from implant_model.storage import ObjectInfo
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.trail import TRAIL, RunFacts, Trail, check_trail
from jobs.tables.verification import verify_output
from tests.support.object_store import ObjectStore
from tests.support.sample_output import publish_sample

NOW = datetime(2100, 1, 31, tzinfo=UTC)


def facts(run: str) -> RunFacts:
    return RunFacts(run, "m@0123456789ab", "c0", "0.2.0", "drop", None, ("s3://pacs/2026",), 1)


def result(name: str = "a.tar") -> ArchiveResult:
    archive = PlannedArchive(name, ObjectInfo(f"s3://pacs/{name}", 10, "v1"))
    counts = Counts()
    counts.outcomes["identified"] = 3
    return ArchiveResult(archive, ArchiveStatus.COMPLETE, None, "", (), counts, NOW, NOW)


def three_runs(output: str) -> list[Path]:
    """Appends the records of two whole runs and of one that was killed; returns their files."""
    for run in ("one", "two"):
        trail = Trail(output, facts(run))
        trail.begin()
        trail.end([result()], 0)
    Trail(output, facts("killed")).begin()
    return sorted((Path(output) / TRAIL).glob("*.json"))


def begun(*runs: str) -> dict[str, datetime]:
    return dict.fromkeys(runs, NOW)


def test_records_say_who_when_what_and_how_it_ended(tmp_path: Path) -> None:
    files = three_runs(str(tmp_path))
    records = [json.loads(file.read_text()) for file in files]
    assert [(record["run"], record["event"]) for record in records] == [
        *(("one", "begin"), ("one", "end"), ("two", "begin"), ("two", "end")),
        ("killed", "begin"),
    ]
    end = records[1]
    assert end["archives"] == {"complete": 1}
    assert end["members"]["identified"] == 3
    assert (end["exit_code"], end["model"], end["configuration_hash"]) == (
        0,
        "m@0123456789ab",
        "c0",
    )
    assert end["user"]
    assert end["host"]
    assert datetime.fromisoformat(end["at"]).tzinfo is not None
    assert (tmp_path / TRAIL / end["settled"]["file"]).is_file()
    assert check_trail(str(tmp_path), begun("one", "two", "killed")) == []


def test_run_that_ends_by_an_error_says_its_kind_alone(tmp_path: Path) -> None:
    trail = Trail(str(tmp_path), facts("one"))
    trail.break_off(ValueError("a patient's name"))  # before it began: nothing was written
    assert not (tmp_path / TRAIL).exists()
    trail.begin()
    trail.break_off(ValueError("a patient's name"))
    text = (tmp_path / TRAIL / "00000001.json").read_text()
    assert json.loads(text)["error"] == "ValueError"
    assert "patient" not in text


@pytest.mark.parametrize("number", range(4))
def test_a_changed_record_breaks_the_chain(number: int, tmp_path: Path) -> None:
    file = three_runs(str(tmp_path))[number]
    file.write_text(file.read_text().replace('"host": "', '"host": "x'))
    (finding,) = check_trail(str(tmp_path), begun("one", "two", "killed"))
    assert finding.startswith(f"trail/{number + 1:08}.json: the record before it is not")


@pytest.mark.parametrize("number", range(4))
def test_a_record_that_is_taken_out_is_missed(number: int, tmp_path: Path) -> None:
    three_runs(str(tmp_path))[number].unlink()
    assert f"trail/{number:08}.json: it is gone." in check_trail(str(tmp_path), {})


def test_a_run_whose_records_are_cut_off_is_missed_by_its_rows(tmp_path: Path) -> None:
    for file in three_runs(str(tmp_path))[2:]:
        file.unlink()
    findings = check_trail(str(tmp_path), begun("one", "two"))
    assert findings == ["trail: the run two wrote rows of archives and has no record."]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"at": 1}', b"\xff", b'{"at": "soon"}'])
def test_a_record_that_is_none_is_found(data: bytes, tmp_path: Path) -> None:
    three_runs(str(tmp_path))[1].write_bytes(data)
    assert "trail/00000001.json: no record." in check_trail(str(tmp_path), {})


def test_records_that_change_places_are_found(tmp_path: Path) -> None:
    files = three_runs(str(tmp_path))
    first, second = files[0].read_bytes(), files[2].read_bytes()
    files[0].write_bytes(second)
    files[2].write_bytes(first)
    assert len(check_trail(str(tmp_path), {})) == 4  # each of the two, and each behind them


def test_what_a_run_settled_is_held_by_its_hash(tmp_path: Path) -> None:
    three_runs(str(tmp_path))
    settled = tmp_path / TRAIL / "one.parquet"
    settled.write_bytes(settled.read_bytes() + b"x")
    (finding,) = check_trail(str(tmp_path), {})
    assert "trail/one.parquet: its bytes are not those that" in finding
    settled.unlink()
    (finding,) = check_trail(str(tmp_path), {})
    assert finding == "trail/one.parquet: it is gone; trail/00000001.json names it."


def test_output_of_before_the_trail_has_no_finding(tmp_path: Path) -> None:
    output = publish_sample(tmp_path)
    assert verify_output(output).findings == ()
    Trail(output, facts("one")).begin()  # younger than the rows that are there
    assert verify_output(output).findings == ()


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_runs_at_once_make_one_chain(
    place: str, tmp_path: Path, object_store: ObjectStore, bucket: str
) -> None:
    output = str(tmp_path) if place == "disk" else f"s3://{bucket}/out"

    def run(name: str) -> None:
        trail = Trail(output, facts(name))
        trail.begin()
        trail.end([result()], 0)

    threads = [threading.Thread(target=run, args=(f"run-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [info.uri for info in storage.list_objects(f"{output}/{TRAIL}/")]
    assert sum(uri.endswith(".json") for uri in found) == 8
    assert check_trail(output, begun(*(f"run-{n}" for n in range(4)))) == []
