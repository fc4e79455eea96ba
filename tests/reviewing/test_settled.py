"""What people settled goes back: labels that training reads, synonyms that an audit takes."""

import csv
import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.identification import identify
from implant_model.limits import Limits
from jobs import audit, evaluate, review
from jobs.deciding.decisions import DecisionTable, Judgement, Queue, export_parquet
from jobs.reviewing.cases import open_audit
from jobs.reviewing.originals import Originals
from jobs.reviewing.serve import preprocessing_of
from jobs.reviewing.workbench import Verdict, Workbench
from tests.support.workbench.decision_samples import decision
from tests.support.workbench.review_samples import Reviewed, make_reviewed, radiograph, summary_of
from training.data.gather import gather
from training.data.labels import read_labels


def decide(made: Reviewed, findings: dict[int, tuple[Judgement, str]], reader: str = "Ann") -> None:
    """Decides the records of these numbers."""
    opened = open_audit(made.folder, None, str(made.package), [])
    with Originals(preprocessing_of(opened)) as originals:
        bench = Workbench(opened, DecisionTable(made.folder), originals, reader)
        for case in opened.cases.values():
            if case.row - 1 in findings:
                judgement, implant = findings[case.row - 1]
                bench.decide(Verdict(uuid.uuid4().hex, case.id, Queue.WORKLIST, judgement, implant))


def test_labels_are_those_that_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_reviewed(tmp_path / "own", 15, 64)
    decide(
        made,
        {
            0: (Judgement.RECORD_WRONG, "a new implant"),
            3: (Judgement.RECORD_RIGHT, ""),
            6: (Judgement.BAD_IMAGE, ""),
            9: (Judgement.RECORD_WRONG, ""),
        },
    )
    file = tmp_path / "labels.csv"
    assert review.main([*made.call, "--labels", str(file)]) == 0
    assert "4 radiographs with a label." in capsys.readouterr().out
    labels = read_labels(str(file))
    ((archive, members),) = labels.by_archive.items()
    assert archive == made.archive.as_uri()
    found = {name: row.label for name, row in members.items()}
    assert {found["0.bin"], found["1.bin"]} == {"a new implant"}
    assert found["6.bin"] == found["7.bin"]
    assert found["6.bin"] == audit_claim(made, 3)
    assert set(found) == {"0.bin", "1.bin", "6.bin", "7.bin"}
    info = storage.stat(made.archive.as_uri())
    gathered = gather(
        [(info, "01.tar")], labels, Preprocessing(size_px=64), Limits(), str(tmp_path / "cache")
    )
    assert sorted(gathered.labels) == sorted(found.values()), "what jobs.train fits"
    made.archive.write_bytes(made.archive.read_bytes() + bytes(512))
    assert review.main([*made.call, "--labels", str(file)]) == 0
    assert "4 could not be read again" in capsys.readouterr().out


def test_labels_are_those_that_an_evaluation_scores_a_package_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_reviewed(tmp_path / "own", 15, 64)
    named = {0: (Judgement.RECORD_WRONG, "a new implant"), 9: (Judgement.BAD_IMAGE, "")}
    right = {3: (Judgement.RECORD_RIGHT, ""), 6: (Judgement.RECORD_WRONG, made.truths[6])}
    decide(made, named | right)
    file, report = tmp_path / "labels.csv", tmp_path / "evaluation"
    assert review.main([*made.call, "--labels", str(file)]) == 0
    call = ["--model", str(made.package), "--images", str(made.archive), "--labels", str(file)]
    assert evaluate.main([*call, "--report", str(report), "--robustness", "0"]) == 0
    found = json.loads((report / "evaluation.json").read_text())
    labels = {3: audit_claim(made, 3), 6: made.truths[6]}
    best = {at: [said(made, 2 * at + place) for place in (0, 1)] for at in labels}
    hits = sum(name == labels[at] for at, names in best.items() for name in names)
    assert found["figures"]["top_1"]["count"] == 4, "two radiographs of each known label"
    assert found["figures"]["top_1"]["value"] == hits / 4
    assert "Outside the catalogue: 'a new implant', 2 images" in capsys.readouterr().out
    assert found["figures"]["unknown_found"]["count"] == 2


def said(made: Reviewed, member: int) -> str | None:
    """The package's own first answer on a radiograph of the archive."""
    found = identify(radiograph(member, 64, dicom=member % 2 == 1), str(made.package))
    return None if found.implant is None else found.implant.name


def audit_claim(made: Reviewed, record: int) -> str | None:
    opened = open_audit(made.folder, None, str(made.package), [])
    (claimed,) = (c.claimed for c in opened.cases.values() if c.row - 1 == record)
    return claimed


def test_synonym_that_a_reader_settles_is_taken_by_the_next_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_reviewed(
        tmp_path / "own", 9, 64, more=("--sample", "9"), implant="Der Schulterkopf"
    )
    assert summary_of(made.folder)["verdicts"]["not_in_catalogue"] == 9
    decide(made, {0: (Judgement.RECORD_RIGHT, "zimmer")})
    file = tmp_path / "settled.csv"
    with (made.folder / "unmatched.csv").open(newline="", encoding="utf-8-sig") as opened:
        columns, *rows = csv.reader(opened)
    with (made.folder / "unmatched.csv").open("w", newline="", encoding="cp1252") as opened:
        csv.writer(opened, delimiter=";").writerows([columns, *rows])  # as a spreadsheet saves it
    assert review.main([*made.call, "--synonyms", str(file)]) == 0
    assert "1 texts with a meaning" in capsys.readouterr().out
    with file.open(newline="", encoding="utf-8-sig") as opened:
        (row,) = csv.DictReader(opened)
    assert (row["field"], row["text"], row["means"]) == ("implant", "Der Schulterkopf", "zimmer")
    call = ["--predictions", made.output, "--registry", str(tmp_path / "own" / "records.csv")]
    call += ["--model", str(made.package), "--synonyms", str(file)]
    assert audit.main([*call, "--report", str(tmp_path / "again")]) == 0
    verdicts = summary_of(tmp_path / "again")["verdicts"]
    assert verdicts["not_in_catalogue"] == 0
    assert verdicts["agrees"] == made.truths.count("zimmer")
    decide(made, {1: (Judgement.RECORD_RIGHT, "depuy")})
    assert review.main([*made.call, "--synonyms", str(file)]) == 0
    assert "On 1 readers disagree" in capsys.readouterr().out


def test_readers_who_mean_different_things_leave_a_text_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the same record or on another one, in the catalogue's words or in others."""
    made = make_reviewed(
        tmp_path / "own", 3, 64, more=("--sample", "3"), implant="Der Schulterkopf"
    )
    files = [str(tmp_path / name) for name in ("settled.csv", "labels.csv")]
    for at, word, expected in ((0, "depuy", set()), (1, "a stem", {"zimmer", "a stem"})):
        decide(made, {0: (Judgement.RECORD_RIGHT, "Zimmer")})
        decide(made, {at: (Judgement.RECORD_RIGHT, word)}, "Ben")
        assert review.main([*made.call, "--synonyms", files[0], "--labels", files[1]]) == 0
        assert "0 texts with a meaning by readers. On 1 readers disa" in capsys.readouterr().out
        with open(files[1], newline="") as file:
            assert {row["label"] for row in csv.DictReader(file)} == expected
        shutil.rmtree(made.folder / "decisions")


def test_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    made = make_reviewed(tmp_path / "own", 3, 64)
    for option in ("--labels", "--synonyms"):
        with pytest.raises(UsageError, match=r"a \.csv is expected"):
            review.main([*made.call, option, str(tmp_path / "x.txt")])
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UsageError, match="cannot be written"):
            review.main([*made.call, option, str(tmp_path / "file" / "x.csv")])


def test_files_are_merged_all_or_none_and_what_differs_is_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_reviewed(tmp_path / "own", 3, 64)
    one = decision("f" * 16, "Ben")
    for name, note in (("good", None), ("other", "changed")):
        export_parquet(tmp_path / name, [replace(one, note=note)])
    (tmp_path / "bad").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="bad is no file of decisions"):
        review.main([*made.call, "--merge", str(tmp_path / "good"), str(tmp_path / "bad")])
    assert list(DecisionTable(made.folder).all()) == []
    assert review.main([*made.call, "--merge", str(tmp_path / "good")]) == 0
    assert "1 of 1 decisions added" in capsys.readouterr().out
    assert review.main([*made.call, "--merge", str(tmp_path / "other")]) == 0
    assert "1 differ from the one of the same id" in capsys.readouterr().out
    assert list(DecisionTable(made.folder).all()) == [one]
