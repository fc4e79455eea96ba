"""Queues, turns and decisions of readers at one audit."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from jobs import audit
from jobs.deciding.decisions import DecisionTable, Judgement, Kind, Queue, case_id
from jobs.reviewing.cases import open_audit
from jobs.reviewing.originals import Originals
from jobs.reviewing.workbench import Verdict, Workbench
from tests.support.workbench.review_samples import Reviewed, make_reviewed, summary_of

WRONG, RIGHT = Judgement.RECORD_WRONG, Judgement.RECORD_RIGHT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Reviewed:
    return make_reviewed(tmp_path_factory.mktemp("reviewed"), 12)


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with Originals(Preprocessing(size_px=64)) as started:
        yield started


class Readers:
    """Readers of one audit, each with a table object of its own, as in servers of their own."""

    def __init__(self, made: Reviewed, originals: Originals, table: Path) -> None:
        self.audit = open_audit(made.folder, None, str(made.package), [])
        self.originals, self.table = originals, table

    def __getitem__(self, name: str) -> Workbench:
        return Workbench(self.audit, DecisionTable(self.table), self.originals, name)


@pytest.fixture
def readers(made: Reviewed, originals: Originals, tmp_path: Path) -> Readers:
    return Readers(made, originals, tmp_path)


def verdict(case: str, judgement: Judgement = RIGHT, queue: Queue = Queue.WORKLIST) -> Verdict:
    return Verdict(uuid.uuid4().hex, case, queue, judgement)


def left(bench: Workbench, name: Queue = Queue.WORKLIST, words: str = "") -> list[str]:
    return list(bench.progress(name, bench.standing(), words).left)


def test_cases_are_the_contradictions_with_all_their_radiographs(
    readers: Readers, made: Reviewed
) -> None:
    audit = readers.audit
    assert sorted(audit.cases[case].row for case in audit.worklist) == [n + 1 for n in made.wrong]
    for case in audit.cases.values():
        record = case.row - 1
        images = audit.radiographs(case.id)
        assert [image.place.index for image in images if image.place] == [
            2 * record,
            2 * record + 1,
        ]
        assert all(image.predicted["implant"] == made.truths[record] for image in images
                   if image.predicted)  # fmt: skip
        assert case.seen == made.truths[record]
        assert case.texts["hospital"] == f"Hospital {record % 2}"


def test_case_is_known_by_its_record_not_by_its_row() -> None:
    assert case_id("R1", "S1", 5) == case_id("R1", "S1", 9)
    assert case_id(None, None, 5) != case_id(None, None, 9)
    assert case_id("R1", "S1", 5) != case_id("R1", "S2", 5)


def test_two_readers_share_a_worklist_and_a_third_arbitrates(readers: Readers) -> None:
    ann, ben, cy = readers["Ann"], readers["Ben"], readers["Cy"]
    first, second, third, fourth = left(ann)
    ann.decide(verdict(first, WRONG))
    assert left(ben) == [second, third, fourth], "what Ann has read is not served again"
    ben.decide(verdict(second, RIGHT))
    assert left(ann, Queue.SECOND) == [second]
    assert left(ben, Queue.SECOND) == [first]
    assert left(cy, Queue.SECOND) == [first, second]
    ben.decide(verdict(first, RIGHT, Queue.SECOND))
    assert left(ben, Queue.SECOND) == []
    assert left(cy, Queue.SECOND) == [second], "two readings are enough"
    assert left(cy, Queue.ARBITRATION) == [first]
    assert left(ann, Queue.ARBITRATION) == left(ben, Queue.ARBITRATION) == []
    with pytest.raises(UsageError, match="A third reader arbitrates"):
        ann.decide(verdict(first, WRONG, Queue.ARBITRATION))
    with pytest.raises(UsageError, match="no conflict any more"):
        cy.decide(verdict(second, WRONG, Queue.ARBITRATION))
    settling = verdict(first, WRONG, Queue.ARBITRATION)
    assert cy.decide(settling)
    assert not cy.decide(settling), "sent again"
    settled = ann.standing()[first].settled
    assert settled is not None
    assert (settled.kind, settled.judgement) == (Kind.ARBITRATION, WRONG)
    (agreement,) = ann.agreements(ann.standing())
    assert (agreement.readers, agreement.same, agreement.ac1.count) == (("Ann", "Ben"), 0.0, 1)


def test_undo_takes_back_one_after_the_other(readers: Readers) -> None:
    ann, ben = readers["Ann"], readers["Ben"]
    assert ann.undo() is None
    cases = left(ann)
    for case in cases[:2]:
        ann.decide(verdict(case))
    assert ben.undo() is None, "not what others have decided"
    assert [ann.undo(), ann.undo(), ann.undo()] == [cases[1], cases[0], None]
    assert left(ann) == cases


def test_decision_says_who_when_and_on_which_pictures(readers: Readers, made: Reviewed) -> None:
    ann = readers["Ann"]
    case = left(ann)[0]
    ann.begin(case)
    for image in ann.audit.radiographs(case)[:1]:
        assert image.place is not None
        assert ann.originals.original(image.place).trouble is None
    sent = replace(verdict(case, WRONG), implant="  DePuy", note=" why\0\ud83e ", seconds=12.34)
    ann.decide(sent)
    (kept,) = ann.decisions()
    assert (kept.id, kept.reader, kept.implant, kept.note) == (sent.id, "Ann", "depuy", "why\ufffd")
    assert kept.begun_at <= kept.decided_at
    assert kept.seconds == 12.3
    assert [image.shown for image in kept.images] == [True, False]
    assert {image.archive_version for image in kept.images} == {
        image.predicted["archive_version"] for image in ann.audit.radiographs(case)
        if image.predicted
    }  # fmt: skip
    assert kept.model == ann.audit.summary["model"]


def test_an_implant_is_one_however_it_is_typed_and_never_the_record_s_own(
    readers: Readers,
) -> None:
    ann, ben = readers["Ann"], readers["Ben"]
    case = left(ann)[0]
    claimed = ann.audit.cases[case].claimed
    assert claimed is not None
    with pytest.raises(UsageError, match="the implant that the record names"):
        ann.decide(replace(verdict(case, WRONG), implant=claimed.upper()))
    for word in ("x" * 201, "a\u202eb"):
        with pytest.raises(UsageError, match="at most 200 characters, all of them printable"):
            ann.decide(replace(verdict(case, WRONG), implant=word))
    ann.decide(replace(verdict(case, WRONG), implant="Some  other stem"))
    ben.decide(replace(verdict(case, WRONG, Queue.SECOND), implant="some other Stem"))
    assert not ann.standing()[case].is_conflict


def test_a_reader_whose_name_is_written_otherwise_is_no_second_one(readers: Readers) -> None:
    ann, again = readers["Ann"], readers["ANN "]
    case = left(ann)[0]
    ann.decide(verdict(case))
    assert left(again, Queue.SECOND) == []
    assert again.own(again.standing()[case]) is not None
    again.decide(verdict(case, WRONG))
    assert [d.judgement for d in again.standing()[case].readings.values()] == [WRONG]
    assert ann.undo() == case, "the same reader's last one"
    readers["Ben"].decide(verdict(case, WRONG, Queue.SECOND))
    (agreement,) = ann.agreements(ann.standing())
    assert agreement.readers == ("Ann", "Ben")


def test_a_clock_that_is_ahead_elsewhere_hides_no_later_decision(readers: Readers) -> None:
    ann = readers["Ann"]
    case = left(ann)[0]
    ann.decide(verdict(case))
    (first,) = ann.decisions()
    ahead = datetime.now(UTC) + timedelta(hours=5)
    ann.table.merge([replace(first, id="a" * 32, decided_at=ahead)])
    ann.decide(verdict(case, WRONG))
    assert [d.judgement for d in ann.standing()[case].readings.values()] == [WRONG]
    ann.undo()
    assert [d.judgement for d in ann.standing()[case].readings.values()] == [RIGHT]


def test_filter_and_order(readers: Readers) -> None:
    ann = readers["Ann"]
    cases = left(ann)
    of_one = left(ann, words="hospital 1")
    assert len(of_one) == 2
    assert left(ann, words="l") == [], "short words are whole ones"
    assert left(ann, words="HOSPI 202") == cases
    progress = ann.progress(Queue.WORKLIST, ann.standing())
    assert ann.following(progress, Queue.WORKLIST, None) == cases[0]
    assert ann.following(progress, Queue.WORKLIST, cases[1]) == cases[2]
    assert ann.following(progress, Queue.WORKLIST, cases[-1]) == cases[0], "from the beginning"
    for case in cases:
        ann.decide(verdict(case))
    done = ann.progress(Queue.WORKLIST, ann.standing())
    assert (list(done.left), done.done) == ([], 4)
    assert ann.following(done, Queue.WORKLIST, cases[0]) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"id": "../x"}, "32 hexadecimal"),
        ({"note": "x" * 2001}, "more than 2,000"),
        ({"seconds": float("nan")}, "impossible"),
        ({"case": "0" * 16}, "no such case"),
    ],
)
def test_impossible_decision_is_refused(
    change: dict[str, Any], match: str, readers: Readers
) -> None:
    ann = readers["Ann"]
    with pytest.raises(UsageError, match=match):
        ann.decide(replace(verdict(left(ann)[0]), **change))
    assert list(ann.decisions()) == []


def test_audit_that_cannot_be_opened_is_a_sentence(made: Reviewed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no summary\.json"):
        open_audit(tmp_path, None, None, [])
    copied = tmp_path / "audit"
    copied.mkdir()
    for name in ("summary.json", "worklist.parquet"):
        (copied / name).write_bytes((made.folder / name).read_bytes())
    older = open_audit(copied, None, str(made.package), [])
    assert all(len(case.images) == 1 for case in older.cases.values()), "without images.parquet"
    (copied / "worklist.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="make the audit again"):
        open_audit(copied, None, str(made.package), [])
    (copied / "summary.json").write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"summary.json is no summary .* make the audit again"):
        open_audit(copied, None, str(made.package), [])
    with pytest.raises(UsageError, match="holds no tables"):
        open_audit(made.folder, (tmp_path / "none").as_uri(), str(made.package), [])


def test_ten_thousand_cases_are_served_at_once(
    made: Reviewed, originals: Originals, tmp_path: Path
) -> None:
    audit = open_audit(made.folder, None, str(made.package), [])
    one = audit.cases[audit.worklist[0]]
    audit.cases = {f"{n:016x}": replace(one, id=f"{n:016x}", row=n) for n in range(10_000)}
    audit.worklist = list(audit.cases)
    bench = Workbench(audit, DecisionTable(tmp_path), originals, "Ann")
    cases = left(bench)
    assert len(cases) == 10_000
    bench.decide(verdict(cases[5000]))
    progress = bench.progress(Queue.WORKLIST, bench.standing())
    assert bench.following(progress, Queue.WORKLIST, cases[4999]) == cases[5001]


def test_radiographs_are_found_where_archives_are_now(made: Reviewed, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "01.tar").hardlink_to(made.archive)
    audit = open_audit(made.folder, None, str(made.package), [moved.as_uri()])
    (image, _) = audit.radiographs(audit.worklist[0])
    assert image.place is not None
    assert image.place.uri == (moved / "01.tar").as_uri()


def test_row_that_the_predictions_lost_is_a_sentence(made: Reviewed) -> None:
    audit = open_audit(made.folder, None, str(made.package), [])
    case = audit.worklist[0]
    audit.cases = {**audit.cases, case: replace(audit.cases[case], images=(("gone.tar", 0, True),))}
    (image,) = audit.radiographs(case)
    assert image.place is None
    assert image.trouble == "The predictions have no row of it any more."
    assert pa.types.is_int64(pq.read_table(made.folder / "images.parquet").schema.field("row").type)


def test_sample_is_read_blind_and_gives_the_rate(tmp_path: Path, originals: Originals) -> None:
    own = make_reviewed(tmp_path / "own", 24, 64, more=("--sample", "12"))
    summary = summary_of(own.folder)
    assert summary["sample"]["drawn"] == 12
    assert summary["sample"]["seed"] == int(summary["data"][:8], 16)
    readers = Readers(own, originals, own.folder)
    ann = readers["Ann"]
    cases = left(ann, Queue.SAMPLE)
    assert {ann.audit.cases[case].verdict for case in cases} == {"agrees", "contradicts"}
    sampled = ann.audit.cases[cases[0]]
    assert ann.is_blind(sampled, Queue.SAMPLE)
    assert ann.is_blind(sampled, Queue.SECOND)
    assert not ann.is_blind(sampled, Queue.WORKLIST)
    widths = []
    for number, case in enumerate(cases):
        is_wrong = ann.audit.cases[case].row - 1 in own.wrong
        ann.decide(verdict(case, WRONG if is_wrong else RIGHT, Queue.SAMPLE))
        found = ann.verified()
        assert found is not None
        assert found.verified == number + 1
        if number >= len(summary["sample"]["strata"]):
            widths.append(found.best.high - found.best.low)
    assert widths[-1] < widths[0], "it narrows while one works"
    assert found is not None
    assert found.design.low <= len(own.wrong) / 24 <= found.design.high
    call = ["--predictions", own.output, "--registry", str(tmp_path / "own" / "records.csv")]
    call += ["--report", str(own.folder), "--model", str(own.package)]
    assert audit.main(call) == 0
    again = summary_of(own.folder)
    assert again["error_rate_verified"]["verified"] == 12
    assert again["error_rate_verified"]["design"]["value"] == pytest.approx(
        found.design.value, 1e-3
    )
    page = (own.folder / "audit.html").read_text()
    assert "Rate of errors, verified" in page
    rows = (tmp_path / "own" / "records.csv").read_text().replace("2020", "2021")
    (tmp_path / "own" / "records.csv").write_text(rows)
    assert audit.main(call) == 0
    other = open_audit(own.folder, None, str(own.package), [])
    assert other.sample_table is None, "a sample of other data is none of this audit"
    assert summary_of(own.folder)["error_rate_verified"] is None
