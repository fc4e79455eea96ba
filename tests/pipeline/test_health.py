import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import ArchiveReason, ArchiveStatus
from implant_model.storage.uri import ObjectInfo
from jobs.entry.command import INCOMPLETE, OK
from jobs.pipeline.health import Health, read_history, take_health
from jobs.pipeline.plan import Plan
from jobs.pipeline.summary import exit_code, summarise
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.receipts import Counts, UnitFile, novelty_bin
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.state.record_index import Done, Records

MODEL = "small@0123456789ab"
USUAL = {"stem-a": 200, "stem-b": 150, "knee-c": 50}
OTHER = {"stem-a": 40, "stem-b": 40, "knee-c": 320}
BEGAN = datetime.now(UTC) - timedelta(hours=9)
NOTHING = Plan((), Done(Records.of(), []))


def night(
    days_ago: float = 0,
    implants: dict[str, int] | None = None,
    rejected: int = 4,
    novelty: float = 20.0,
) -> ArchiveResult:
    """One archive's result: some hundred classified members and a few rejected ones."""
    implants = USUAL if implants is None else implants
    classified = sum(implants.values())
    ended = datetime.now(UTC) - timedelta(days=days_ago)
    unit = UnitFile("u", 0, classified + rejected, 9, "0" * 64)
    spread = {str(novelty_bin(novelty * (1 + i / 10))): classified // 10 for i in range(10)}
    return ArchiveResult(
        PlannedArchive("a.tar", ObjectInfo("file:///a.tar", 10, "v")),
        ArchiveStatus.COMPLETE,
        None,
        "",
        (unit,),
        Counts(
            Counter({"identified": classified, "rejected": rejected}),
            Counter({"empty": rejected} if rejected else {}),
            Counter(implants),
            Counter(spread),
        ),
        ended - timedelta(hours=1),
        ended,
    )


class Nights:
    """An output in which runs leave their health."""

    def __init__(self, folder: Path) -> None:
        self.output = storage.normalise(str(folder / "out"))
        self._run = 0

    def take(self, *results: ArchiveResult, model: str = MODEL, max_drift: float = 0.25) -> Health:
        self._run += 1
        identity = RunIdentity(model, "c0", "0.1.0", f"run{self._run}")
        health = take_health(results, identity, self.output, 1.0, max_drift, BEGAN)
        assert health is not None
        return health

    def history(self, *days_ago: float, model: str = MODEL) -> None:
        for days in days_ago:
            self.take(night(days), model=model)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def test_record_is_counts_and_is_read_back(nights: Nights) -> None:
    health = nights.take(night(), night(implants={}, rejected=3))
    (info,) = storage.list_objects(f"{nights.output}/health/")
    told = json.loads(storage.read_bytes(info.uri))
    assert told["outcomes"] == {"identified": 400, "rejected": 7}
    assert told["reasons"] == {"empty": 7}
    assert told["archives"] == {"complete": 2}
    assert told["seconds"] == pytest.approx(9 * 3600, rel=0.1)
    assert health.members == 407
    since = datetime.now(UTC) - timedelta(days=1)
    assert read_history(nights.output, MODEL, since) == [health]
    assert read_history(nights.output, "other@0123456789ab", since) == []


def test_nothing_done_leaves_nothing(nights: Nights) -> None:
    identity = RunIdentity(MODEL, "c0", "0.1.0", "run")
    assert take_health([], identity, nights.output, 1.0, 0.25, BEGAN) is None
    assert not Path(nights.output.removeprefix("file://")).exists()


def test_run_without_history_warns_of_nothing(nights: Nights) -> None:
    assert nights.take(night(implants=OTHER, novelty=500)).warnings == ()


def test_usual_night_is_usual(nights: Nights) -> None:
    nights.history(6, 5, 4, 3, 2, 1)
    health = nights.take(night())
    assert health.compared_runs == 6
    assert set(health.shifts) == {"outcomes", "implants", "novelty"}
    assert health.warnings == ()
    assert exit_code(NOTHING, [night()], 1.0, health) == OK


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (night(implants=OTHER), "The implants of this run"),
        (night(novelty=60.0), "The novelty of this run"),
        (night(rejected=300), "The outcomes of this run"),
    ],
)
def test_strange_night_is_told_and_ends_with_3(
    nights: Nights, strange: ArchiveResult, words: str
) -> None:
    nights.history(6, 5, 4, 3, 2, 1)
    health = nights.take(strange)
    (warning,) = health.warnings
    assert warning.startswith(words)
    assert exit_code(NOTHING, [strange], 1.0, health) == INCOMPLETE
    assert f"Warning: {words}" in summarise(NOTHING, [strange], nights.output, health)
    assert nights.take(strange, max_drift=20).warnings == ()


def test_few_members_few_runs_old_runs_and_other_models_do_not_alarm(nights: Nights) -> None:
    nights.history(60, 50, 40, 35, 30)
    nights.history(5, 4, 3, 2, 1, model="other@0123456789ab")
    nights.history(4, 3, 2, 1)
    assert nights.take(night(implants=OTHER)).warnings == ()
    nights.history(0.5)
    few = {name: count // 4 for name, count in OTHER.items()}
    assert nights.take(night(implants=few, rejected=0)).shifts == {}


def test_too_many_rejected_members_are_told(nights: Nights) -> None:
    identity = RunIdentity(MODEL, "c0", "0.1.0", "run")
    health = take_health([night(rejected=100)], identity, nights.output, 0.05, 0.25, BEGAN)
    assert health is not None
    (warning,) = health.warnings
    assert warning == "20.0 % of the members were rejected; --max-rejected accepts 5 %."


def test_damaged_record_is_left_out(nights: Nights) -> None:
    nights.history(2, 1)
    for name in ("29990101T000000Z-a.json", "29990102T000000Z-b.json"):
        storage.put_if_absent(f"{nights.output}/health/{name}", b'{"run": 1}')
    since = datetime.now(UTC) - timedelta(days=7)
    assert len(read_history(nights.output, MODEL, since)) == 2


def test_failed_archives_have_no_members_and_no_warning(nights: Nights) -> None:
    lost = ArchiveResult(
        PlannedArchive("a.tar", ObjectInfo("file:///a.tar", 0, "")),
        ArchiveStatus.FAILED,
        ArchiveReason.NOT_FOUND,
        "",
        (),
        Counts(),
        datetime.now(UTC),
        datetime.now(UTC),
    )
    health = nights.take(lost)
    assert (health.members, health.warnings) == (0, ())
    assert health.archives == {"failed": 1}
