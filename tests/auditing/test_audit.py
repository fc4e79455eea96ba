"""The audit as a user runs it: files, sums, sentences, exit codes; no Ray."""

import csv
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key
from implant_model.storage.spreadsheets import write_csv
from jobs import audit as job
from jobs.auditing.registry.registry_file import read_file
from jobs.entry.command import DISCLAIMER
from tests.support.audit_samples import Simulated, simulate, sure, write_output, write_registry
from tests.support.small_package import save_small_package

KEY = hashlib.sha256(b"a test's key").hexdigest().encode()
CORAIL, EXETER, OXFORD = "depuy-corail-collared", "stryker-exeter", "zimmer-biomet-oxford"


def run(folder: Path, predictions: str, registry: str, *more: str) -> tuple[int, dict[str, Any]]:
    """Audits into `folder`; returns exit code and summary."""
    base = ["--predictions", predictions, "--registry", registry, "--report", str(folder)]
    code = job.main([*base, *more])
    return code, json.loads((folder / "summary.json").read_text())


def verdicts(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "verdicts.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(1500, 0.05, seed=3, most_images=2)


@pytest.fixture(scope="module")
def report(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    output = write_output(folder / "out", simulated.predictions)
    registry = write_registry(folder / "registry.csv", simulated.records)
    code, _ = run(folder / "report", output, registry)
    assert code == 0
    return folder / "report"


def test_errors_are_found_and_the_rate_is_theirs(report: Path, simulated: Simulated) -> None:
    summary = json.loads((report / "summary.json").read_text())
    found = {int(row["row"]) - 1 for row in pq.read_table(report / "worklist.parquet").to_pylist()}
    wrong = set(np.flatnonzero(simulated.is_wrong_M).tolist())
    assert len(found & wrong) / len(wrong) > 0.97
    assert len(found & wrong) / len(found) > 0.85
    rate = summary["error_rate_if_classifier_were_exactly_calibrated"]
    assert rate["low"] < simulated.is_wrong_M.mean() < rate["high"]
    assert summary["notice"] == DISCLAIMER


def test_probabilities_of_the_worklist_are_calibrated(report: Path, simulated: Simulated) -> None:
    rows = verdicts(report)
    wrong = np.array([row["wrong_probability"] for row in rows], np.float64)
    judged = ~np.isnan(wrong)
    assert wrong[judged].sum() == pytest.approx(simulated.is_wrong_M[judged].sum(), rel=0.15)
    likely = judged & (wrong > 0.9)
    assert simulated.is_wrong_M[likely].mean() > 0.9
    listed = pq.read_table(report / "worklist.parquet")["wrong_probability"].to_numpy()
    assert (np.diff(listed) <= 0).all()
    with (report / "worklist.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [float(row["wrong_probability"]) for row in csv.DictReader(file)] == pytest.approx(
            listed.tolist(), abs=1e-6
        )


def test_nothing_is_dropped(report: Path, simulated: Simulated) -> None:
    summary = json.loads((report / "summary.json").read_text())
    assert sum(summary["verdicts"].values()) == summary["records"] == len(simulated.records)
    assert sum(summary["image_uses"].values()) == len(simulated.predictions)
    for groups in summary["groups"].values():
        assert sum(group["records"] for group in groups) == len(simulated.records)


def test_radiographs_of_each_record_are_listed(report: Path, simulated: Simulated) -> None:
    images = pq.read_table(report / "images.parquet").to_pylist()
    for verdict in verdicts(report):
        own = [image for image in images if image["row"] == verdict["row"]]
        assert sum(image["votes"] for image in own) == verdict["images"]
        for image in own:
            predicted = simulated.predictions[image["member_index"]]
            assert (image["archive"], predicted["study"]) == ("01.tar", verdict["key"])


def test_rate_of_a_model_that_nobody_measured_is_not_known(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "The model's package was not at hand, and with it no measured accuracy."
    summary = json.loads((report / "summary.json").read_text())
    rate = summary["error_rate"]
    assert (rate["value"], rate["low"], rate["high"], rate["why_not_known"]) == (*[None] * 3, why)
    assert rate["count"] == 1500
    page = html.unescape((report / "audit.html").read_text())
    assert f"is <strong>not known</strong>: {why}" in page
    assert "wrong, 95 % interval" not in page.partition('id="rate"')[2].partition("</section>")[0]
    package = save_small_package(tmp_path / "unmeasured")
    seen = {"implant": "zimmer", "manufacturer": "Zimmer", "joint": "shoulder", "study": "A"}
    image = {
        **seen,
        "outcome": "identified",
        "probability": 0.97,
        "candidates": ["zimmer"],
        "top": [{"implant": "zimmer", "probability": 0.97}],
    }
    output = write_output(tmp_path / "out", [image], package.id)
    registry = write_registry(tmp_path / "r.csv", [{"study": "A", "implant": "Zimmer"}])
    _, summary = run(tmp_path / "r", output, registry, "--model", str(tmp_path / "unmeasured"))
    why = "The model's package has no measured accuracy."
    assert summary["error_rate"]["why_not_known"] == why
    assert f"Rate of errors of the registry: not known. {why}" in capsys.readouterr().out


def test_pseudonyms_meet_raw_identifiers_under_the_same_key(tmp_path: Path) -> None:
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY))
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    names = [protector.identifier("study", f"S{n}") for n in range(3)]
    output = write_output(tmp_path / "out", [sure(EXETER, study=name) for name in names])
    rows = [{"StudyInstanceUID": f"S{n}", "implant": EXETER} for n in range(3)]
    raw = write_registry(tmp_path / "raw.csv", rows)
    code, summary = run(tmp_path / "a", output, raw, "--key-file", str(tmp_path / "key"))
    assert (code, summary["verdicts"]["agrees"]) == (0, 3)
    assert {row["key"] for row in verdicts(tmp_path / "a")} == set(names)
    same = [{**row, "StudyInstanceUID": name} for row, name in zip(rows, names, strict=True)]
    hidden = write_registry(tmp_path / "hidden.csv", same)
    assert run(tmp_path / "b", output, hidden)[1]["verdicts"]["agrees"] == 3
    with pytest.raises(UsageError, match="predictions hold pseudonyms for study and the registry"):
        run(tmp_path / "c", output, raw)
    (tmp_path / "key").write_bytes(KEY[::-1])
    code, summary = run(tmp_path / "d", output, raw, "--key-file", str(tmp_path / "key"))
    assert (code, summary["verdicts"]["no_image"]) == (3, 3)


def test_audit_under_another_key_names_the_key_that_it_needs(tmp_path: Path) -> None:
    key = Key.of(KEY)
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, key)
    image = sure(EXETER, study=protector.identifier("study", "S1"))
    output = write_output(tmp_path / "out", [image], key_id=key.key_id)
    raw = write_registry(tmp_path / "raw.csv", [{"StudyInstanceUID": "S1", "implant": EXETER}])
    (tmp_path / "key").write_bytes(KEY[::-1])
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(UsageError, match=f"were made under the key {key.key_id}; the key given"):
        run(tmp_path / "a", output, raw, "--key-file", str(tmp_path / "key"))
    (tmp_path / "key").write_bytes(KEY)
    _, summary = run(tmp_path / "b", output, raw, "--key-file", str(tmp_path / "key"))
    assert summary["verdicts"]["agrees"] == 1


def audited(
    tmp_path: Path, predictions: list[dict[str, Any]], rows: list[dict[str, object]], *more: str
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """One audit in a folder of its own: exit code, summary, verdicts."""
    number = len(list(tmp_path.iterdir()))
    folder = tmp_path / str(number)
    folder.mkdir()
    output = write_output(folder / "out", predictions)
    registry = write_registry(folder / "registry.csv", rows)
    code, summary = run(folder / "report", output, registry, *more)
    return code, summary, verdicts(folder / "report")


def test_each_verdict(tmp_path: Path) -> None:
    predictions = [
        sure(EXETER, study="agrees"),
        sure(OXFORD, study="contradicts"),
        sure(EXETER, study="strange", outcome="unknown"),
        sure(EXETER, study="both"),
        sure(OXFORD, study="both"),
        {"outcome": "rejected", "reason": "truncated", "study": "broken"},
        sure(EXETER, study="foreign"),
        sure(EXETER, study="nobody's"),
        sure(EXETER),
        {"outcome": "ignored", "reason": "clutter"},
    ]
    rows: list[dict[str, object]] = [
        {"study": name, "product": "Other" if name == "foreign" else "Exeter"}
        for name in ("agrees", "contradicts", "strange", "both", "broken", "foreign", "absent")
    ]
    code, summary, found = audited(tmp_path, predictions, rows)
    assert code == 0
    assert [(row["verdict"], row["why"]) for row in found] == [
        ("agrees", None),
        ("contradicts", None),
        ("undecided", "looks_unknown"),
        ("undecided", "none_left"),
        ("no_readable_image", None),
        ("not_in_catalogue", None),
        ("no_image", None),
    ]
    uses = {name: count for name, count in summary["image_uses"].items() if count}
    assert uses == {
        "used": 4,
        "no_picture": 2,
        "no_key": 1,
        "no_record": 1,
        "looks_unknown": 1,
        "not_in_catalogue": 1,
    }
    assert summary["image_reasons"] == {"clutter": 1, "truncated": 1}
    assert summary["unmatched"][0]["text"] == "Other"
    assert found[1]["seen"] == OXFORD
    assert (found[1]["archive"], found[1]["member_index"]) == ("01.tar", 1)


def test_patient_side_and_joint(tmp_path: Path) -> None:
    """Only images that say which side and joint they show speak for a record of one of several."""
    hip: dict[str, Any] = {"patient": "P1", "body_part": "PELVIS"}
    predictions = [
        sure(EXETER, **hip, laterality="L"),
        sure(CORAIL, **hip, laterality="R"),
        sure(EXETER, **hip),
        sure(OXFORD, patient="P1", body_part="KNEE", laterality="L"),
        sure(OXFORD, patient="P1", laterality="R"),
        sure(EXETER, patient="P1", body_part="CHEST", laterality="L"),
    ]
    rows: list[dict[str, object]] = [
        {"patient": "P1", "side": "left", "joint": "Hip", "implant": EXETER},
        {"patient": "P1", "side": "right", "joint": "Hip", "implant": EXETER},
        {"patient": "P1", "side": "L", "joint": "TKR", "implant": OXFORD},
        {"patient": "P1", "side": "R", "joint": "knee", "implant": OXFORD},
        {"patient": "P1", "side": "", "joint": "knee", "implant": OXFORD},
    ]
    code, summary, found = audited(tmp_path, predictions, rows)
    assert code == 3, "a record that cannot be joined is missing"
    said = ["agrees", "contradicts", "agrees", "agrees", "excluded"]
    assert [row["verdict"] for row in found] == said
    assert [row["images"] for row in found] == [1, 1, 1, 1, 0]
    assert summary["excluded"] == {"no_side_or_joint": 1}
    assert summary["image_uses"]["other_site"] == 2


def test_a_study_of_one_joint_needs_no_side(tmp_path: Path) -> None:
    predictions = [
        sure(EXETER, accession="A"),
        sure(EXETER, accession="A", laterality="R", content="same"),
        sure(EXETER, accession="A", laterality="R", content="same"),
        sure(OXFORD, accession="A", laterality="L"),
    ]
    rows: list[dict[str, object]] = [{"AccessionNumber": "A", "side": "R", "implant": EXETER}]
    _, summary, found = audited(tmp_path, predictions, rows)
    assert (found[0]["verdict"], found[0]["images"]) == ("agrees", 2)
    assert summary["image_uses"]["same_picture"] == 1
    assert summary["image_uses"]["other_site"] == 1


def test_images_named_one_by_one_give_one_verdict_a_record(tmp_path: Path) -> None:
    predictions = [sure(EXETER, instance=f"I{n}", study="S") for n in range(3)]
    predictions.append(sure(OXFORD, instance="I9", study="S"))
    rows: list[dict[str, object]] = [
        {"record": "1", "SOPInstanceUID": "I0", "implant": EXETER, "year": 2020},
        {"record": "1", "SOPInstanceUID": "I1", "implant": EXETER, "year": 2020},
        {"record": "1", "SOPInstanceUID": "I1", "implant": EXETER, "year": 2020},
        {"record": "2", "SOPInstanceUID": "I2", "implant": EXETER, "year": 2020},
        {"record": "2", "SOPInstanceUID": "I2", "implant": OXFORD, "year": 2020},
        {"record": "3", "SOPInstanceUID": "", "implant": OXFORD, "year": 2020},
        {"record": "4", "SOPInstanceUID": "I2", "implant": "", "year": 2020},
    ]
    code, summary, found = audited(tmp_path, predictions, rows)
    whys = ["continued", "duplicate", "conflicting", "conflicting", "no_key", "no_implant"]
    assert [row["why"] for row in found] == [None, *whys]
    assert (found[0]["verdict"], found[0]["images"]) == ("agrees", 2)
    assert summary["verdicts"]["excluded"] == 6
    assert code == 3


def test_records_of_one_joint_that_name_different_implants_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A primary and its revision: no image states which of the two it is of."""
    hip: dict[str, Any] = {"body_part": "HIP", "laterality": "L"}
    joint: dict[str, object] = {"side": "L", "joint": "hip"}
    predictions = [
        sure(EXETER, patient="revised", **hip),
        sure(CORAIL, patient="revised", **hip),
        sure(EXETER, patient="twice", **hip),
        sure(EXETER, patient="foreign", **hip),
        sure(EXETER, patient="sides", **hip),
        sure(CORAIL, patient="sides", body_part="HIP", laterality="R"),
    ]
    rows: list[dict[str, object]] = [
        {"record": "1", "patient": "revised", **joint, "product": "Exeter"},
        {"record": "2", "patient": "revised", **joint, "product": "Corail, with collar"},
        {"record": "3", "patient": "twice", **joint, "product": "Exeter"},
        {"record": "4", "patient": "twice", **joint, "product": "EXETER"},
        {"record": "5", "patient": "foreign", **joint, "product": "Exeter"},
        {"record": "6", "patient": "foreign", **joint, "product": "Other"},
        {"record": "7", "patient": "sides", **joint, "product": "Exeter"},
        {"record": "8", "patient": "sides", "side": "R", "joint": "hip", "product": "Corail"},
        {"record": "9", "patient": "unseen", **joint, "product": "Exeter"},
        {"record": "10", "patient": "unseen", **joint, "product": "Corail"},
    ]
    code, summary, found = audited(tmp_path, predictions, rows)
    several = ("excluded", "several_records")
    once = ("agrees", None)
    said = [(row["verdict"], row["why"]) for row in found[:8]]
    assert said == [several, several, once, once, several, several, once, once]
    assert [row["verdict"] for row in found[8:]] == ["no_image", "no_image"]
    assert summary["excluded"] == {"several_records": 4}
    assert summary["error_rate"]["count"] == 3, "the joint of 3 and 4 counts once"
    assert summary["records_whose_joint_counts_with_another"] == 1
    assert [row["same_joint_as"] for row in found] == [*[None] * 3, 3, *[None] * 6]
    with (tmp_path / "0" / "report" / "same_joint.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        assert [*csv.DictReader(file)] == [{"row": "4", "record": "4", "same_joint_as": "3"}]
    assert summary["image_uses"]["several_records"] == 3
    assert summary["image_uses"]["used"] == 3
    assert sum(summary["image_uses"].values()) == len(predictions)
    assert code == 0, "revisions are no fault of the file"
    printed = capsys.readouterr().out
    assert "Joints with several records: 4 records, see excluded.csv." in printed
    assert "Joints recorded again: 1 records, see same_joint.csv." in printed
    with (tmp_path / "0" / "report" / "excluded.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        assert [row["record"] for row in csv.DictReader(file)] == ["1", "2", "5", "6"]


def test_records_of_one_study_are_left_out_likewise(tmp_path: Path) -> None:
    predictions = [sure(EXETER, study="S"), sure(OXFORD, study="T")]
    rows: list[dict[str, object]] = [
        {"study": "S", "implant": EXETER},
        {"study": "S", "implant": OXFORD},
    ]
    code, summary, found = audited(tmp_path, predictions, rows)
    assert [row["why"] for row in found] == ["several_records"] * 2
    assert (code, summary["error_rate"]["count"]) == (3, 0), "nothing was audited"


def test_what_is_excluded_is_listed(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [sure(EXETER, study="S")])
    path = tmp_path / "registry.csv"
    path.write_text(
        "\ufeffid;study;implant\n7;S;stryker-exeter\n8;S\n9;S;x;y\n7;S;stryker-exeter\n"
    )
    code, summary = run(tmp_path / "report", output, str(path))
    assert code == 3
    assert summary["verdicts"]["agrees"] == 1
    assert summary["excluded"] == {"malformed": 2, "duplicate": 1}
    with (tmp_path / "report" / "excluded.csv").open(newline="", encoding="utf-8-sig") as file:
        listed = [tuple(row.values())[:3] for row in csv.DictReader(file)]
    assert listed == [("2", "", "malformed"), ("3", "", "malformed"), ("4", "7", "duplicate")]
    assert [row["row"] for row in verdicts(tmp_path / "report")] == [1, 2, 3, 4]


def test_parquet_and_csv_of_any_kind_say_the_same(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [sure(EXETER, study="17"), sure(OXFORD, study="18")])
    header, rows = "Nr,Étude,Produit\n", "1,17,Exeter\n2,18,Exeter\n"
    (tmp_path / "1.csv").write_text(header + rows, encoding="utf-8")
    (tmp_path / "2.csv").write_text(header + rows, encoding="cp1252")
    (tmp_path / "3.csv").write_text((header + rows).replace(",", "\t"), encoding="utf-16")
    table = pa.table({"Nr": [1, 2], "Étude": [17.0, 18.0], "Produit": ["Exeter", "Exeter"]})
    pq.write_table(table, tmp_path / "4.parquet")
    columns = ("--columns", "record=Nr", "--columns", "study=Étude,product=Produit")
    for name, encoding in (
        ("1.csv", "utf-8"),
        ("2.csv", "cp1252"),
        ("3.csv", "utf-16"),
        ("4.parquet", "utf-8"),
    ):
        more = (*columns, "--encoding", encoding)
        code, _ = run(tmp_path / f"r{name}", output, str(tmp_path / name), *more)
        said = [(row["record"], row["verdict"]) for row in verdicts(tmp_path / f"r{name}")]
        assert (code, said) == (0, [("1", "agrees"), ("2", "contradicts")]), name


def test_mistakes_are_sentences_and_leave_nothing(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [sure(EXETER, study="S")])
    good = write_registry(tmp_path / "good.csv", [{"study": "S", "implant": EXETER}])

    def fails(match: str, text: str | bytes | None = None, **changes: str) -> None:
        registry = good
        if text is not None:
            registry = str(tmp_path / "bad.csv")
            Path(registry).write_bytes(text if isinstance(text, bytes) else text.encode())
        options = {"predictions": output, "registry": registry, "report": str(tmp_path / "report")}
        words = [w for k, v in (options | changes).items() for w in (f"--{k}", v)]
        with pytest.raises(UsageError, match=match) as caught:
            job.main(words)
        assert "\n" not in str(caught.value)

    fails("is empty; a table with a header", "")
    fails("is empty; a table with a header", " \n")
    fails("has a header and no rows", "study,implant\n")
    fails("no column that states which image is meant", "implant\nx\n")
    fails("no column that states what was implanted", "study\nS\n")
    fails("no column for side", "patient,joint,implant\nP,hip,x\n")
    fails("no column 'Maker', named for manufacturer", columns="manufacturer=Maker")
    fails("a column's name of more than 131072", f"study,implant,{'x' * 200_000}\nS,x,y\n")
    fails(
        r"--columns has 'study=a\\nproduct=b', which has a line end", columns="study=a\nproduct=b"
    )
    fails("two columns 'study'", "study,study,implant\nS,S,x\n")
    fails("not in the encoding utf-8", b"study,implant\nS,\xff\n")
    fails("not in the encoding utf-8", b"study,implant\xff\nS,x\n")
    fails("a quotation mark in row 1", 'study,implant\n"S,x\nS,y\nS,z\n')
    fails("cannot be read: ", b"PAR1 and no more")
    fails("--registry cannot be read", registry=str(tmp_path / "none.csv"))
    fails("FIELD=COLUMN is accepted", columns="study")
    fails("FIELD=COLUMN is accepted", columns="colour=x")
    fails("names 'study' twice", columns="study=a,study=b")
    fails("--encoding is 'klingon'", encoding="klingon")
    fails("--pictures is -1", pictures="-1")
    fails("--pictures needs the package", pictures="1")
    fails("holds no tables", predictions=str(tmp_path / "none"))
    fails("a folder of this machine", report="s3://bucket/report")
    fails("no column for patient", key="patient")
    fails("No prediction has an identifier of the kind accession", "accession,implant\nA,x\n")
    fails("--previous cannot be read", previous=str(tmp_path / "none.json"))
    fails("no summary of an audit", previous=good)
    save_small_package(tmp_path / "package")
    fails("--model names small@", model=str(tmp_path / "package"))
    assert not list((tmp_path / "report").glob("*"))


def test_spellings_of_a_product_are_one_row_of_its_table(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"study": "A", "manufacturer": "Stryker", "product": "Exeter"},
        {"study": "B", "manufacturer": "STRYKER INC.", "product": "Stryker exeter"},
    ]
    images = [sure(EXETER, study="A"), sure(EXETER, study="B")]
    _, summary, found = audited(tmp_path, images, rows)
    for field, name in (("manufacturer", "Stryker"), ("product", "Exeter")):
        (group,) = summary["groups"][field]
        assert (group["name"], group["records"]) == (name, 2)
    assert [row["product"] for row in found] == ["Exeter", "Stryker exeter"], "as it is written"


def test_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    evil = ["=1+1", "+cmd|'/c calc'!A1", "-2+3", "@SUM(1)", "\t=1", " =1", "\uff1d1", "-5", "a=b"]
    rows: list[dict[str, object]] = [
        {"record": n, "study": "S", "implant": EXETER, "hospital": text}
        for n, text in enumerate(evil)
    ]
    audited(tmp_path, [sure(OXFORD, study="S"), sure(EXETER, study="T")], rows)
    with (tmp_path / "0" / "report" / "worklist.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        cells = [row["hospital"] for row in csv.DictReader(file)]
    assert len(cells) == len(evil)
    for text, cell in zip(evil, cells, strict=True):
        # Blanks around a value are not part of it.
        bare = text.strip()
        assert cell == (bare if bare in ("-5", "a=b") else f"'{bare}"), text
    kept = [row["hospital"] for row in verdicts(tmp_path / "0" / "report")]
    assert kept == [text.strip() for text in evil], "Parquet has the registry's own words"


def test_no_part_of_a_cell_is_run_where_a_spreadsheet_splits_it(tmp_path: Path) -> None:
    texts = {
        "a;=1+1": "a;'=1+1",
        "a,-cmd": "a,'-cmd",
        "a\t @SUM(1)": "a\t '@SUM(1)",
        "a|+1": "a|'+1",
        "a\n=1": "a\n'=1",
        "a\r\n\u200b=1;=2": "a\r\n\u200b'=1;'=2",
        "\u200b=1": "'\u200b=1",
        "\u2060\u00ad+1": "'\u2060\u00ad+1",
        "\u3000@x": "'\u3000@x",
        "\x01=1": "'\x01=1",
        "\u2800=1": "'\u2800=1",
        "\ufe0f=1": "'\ufe0f=1",
        "=1;=2": "'=1;'=2",
        "-5": "-5",
        "a-b; c=d, e": "a-b; c=d, e",
        "Müller": "Müller",
    }
    write_csv(tmp_path / "x.csv", pa.table({"text": [*texts]}))
    data = (tmp_path / "x.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8-sig") as file:
        cells = [row["text"] for row in csv.DictReader(file)]
    assert cells == [*texts.values()]
    again = read_file((tmp_path / "x.csv").as_uri(), {"study": "text", "implant": "text"}, None)
    assert again.columns == {"study": "text", "implant": "text"}


def test_drift_since_the_audit_before(tmp_path: Path) -> None:
    images = [sure(EXETER, study=f"S{n}") for n in range(300)]
    output = write_output(tmp_path / "out", [*images, sure(OXFORD, study="T")])
    rows = [{"study": f"S{n}", "implant": EXETER} for n in range(300)]
    first = write_registry(tmp_path / "1.csv", rows)
    _, summary = run(tmp_path / "report", output, first)
    assert (summary["previous"], summary["drift"]) == (None, [])
    then = summary["made_at"]
    worse = [{**row, "implant": OXFORD} if n < 60 else row for n, row in enumerate(rows)]
    second = write_registry(tmp_path / "2.csv", worse)
    _, summary = run(tmp_path / "report", output, second)
    assert summary["previous"] == then
    changed = {change["name"] for change in summary["drift"] if change["apart"]}
    assert changed == {"Rate of errors", "Agrees", "Contradicts"}
    (rate,) = (change for change in summary["drift"] if change["name"] == "Rate of errors")
    assert (rate["before"]["value"], rate["now"]["value"]) == (None, None), "nobody measured it"
    assert "Since the last audit" in (tmp_path / "report" / "audit.html").read_text()
    for _ in range(2):
        _, again = run(tmp_path / "report", output, second)
        assert again["drift"] == summary["drift"], "the same data once more are no new audit"
        assert again["compared_with"] == summary["compared_with"]
    _, back = run(tmp_path / "report", output, first)
    assert back["compared_with"]["verdicts"] == again["verdicts"]
    assert {change["name"] for change in back["drift"] if change["apart"]} == changed


def test_mr_safety_has_a_row_for_each_study_of_a_record(tmp_path: Path) -> None:
    hip: dict[str, Any] = {"body_part": "HIP", "laterality": "L"}
    predictions = [
        sure(EXETER, patient="P", study="2", **hip),
        sure(EXETER, patient="P", study="1", **hip),
        sure(EXETER, patient="P", study="2", **hip),
        sure(EXETER, patient="Q", study="3", **hip),
        sure(EXETER, patient="Q", **hip),
        sure(EXETER, patient="P", study="4", body_part="HIP", laterality="R"),
    ]
    rows: list[dict[str, object]] = [
        {"record": n, "patient": name, "side": "L", "joint": "hip", "implant": EXETER}
        for n, name in enumerate("PQR")
    ]
    _, summary, _ = audited(tmp_path, predictions, rows)
    listed = pq.read_table(tmp_path / "0" / "report" / "mr_safety.parquet").to_pylist()
    said = [(row["study"], row["record"], row["mr_safety"]) for row in listed]
    studies = [("2", "0"), ("1", "0"), ("3", "1"), (None, "1")]
    assert said == [(*item, "not known") for item in studies]
    assert sum(summary["mr_safety"]["not_known"].values()) == 2, "records, each once"


def ambiguous(tops: dict[str, float], candidates: list[str]) -> dict[str, object]:
    """What the predictions say of an image whose best candidate is Zimmer."""
    return {
        "outcome": "ambiguous",
        "implant": "zimmer",
        "manufacturer": "Zimmer",
        "joint": "shoulder",
        "probability": tops["zimmer"],
        "candidates": candidates,
        "top": [{"implant": name, "probability": p} for name, p in tops.items()],
    }


def test_each_implant_is_a_candidate_by_its_own_quantile(tmp_path: Path) -> None:
    """Two images leave DePuy by its own quantile, and not by that of all."""
    own = save_small_package(tmp_path / "own", class_quantiles=(0.3, 0.8, 0.3, 0.3))
    one = save_small_package(tmp_path / "one")
    tops = {"zimmer": 0.70, "depuy": 0.28, "tornier": 0.01}
    seen = {**ambiguous(tops, ["zimmer", "depuy"]), "study": "A"}
    registry = write_registry(tmp_path / "r.csv", [{"study": "A", "implant": "DePuy"}])
    for name, package, said in (("own", own, "undecided"), ("one", one, "contradicts")):
        output = write_output(tmp_path / f"{name}-out", [seen, seen], package.id)
        report = tmp_path / f"{name}-report"
        run(report, output, registry, "--model", str(tmp_path / name))
        (row,) = verdicts(report)
        assert row["verdict"] == said, name


@pytest.mark.parametrize("num_images", [1, 2])
def test_candidate_beyond_the_best_three_is_one(tmp_path: Path, num_images: int) -> None:
    """The fourth of an image's candidates speaks for its record, and one fewer does not."""
    package = save_small_package(tmp_path / "small", class_quantiles=(0.95,) * 4)
    tops = {"zimmer": 0.4, "depuy": 0.3, "tornier": 0.2}
    fourth = ambiguous(tops, [*tops, "cofield"])
    third = {**fourth, "candidates": [*tops]}
    images = [{**fourth, "study": "A"}] * num_images + [{**third, "study": "B"}] * num_images
    output = write_output(tmp_path / "out", images, package.id)
    rows = [{"study": study, "implant": "Cofield"} for study in "AB"]
    registry = write_registry(tmp_path / "r.csv", rows)
    run(tmp_path / "report", output, registry, "--model", str(tmp_path / "small"))
    found = verdicts(tmp_path / "report")
    assert [row["verdict"] for row in found] == ["undecided", "contradicts"]
    assert found[0]["why"] == "several_left"
    assert 0 < found[0]["claimed_probability"] < 0.2
    assert found[0]["claimed_probability"] == pytest.approx(found[1]["claimed_probability"])
    # Without the package's catalogue, its name is known from that column.
    absent = write_output(tmp_path / "absent", images, "absent@0123456789ab")
    run(tmp_path / "again", absent, write_registry(tmp_path / "s.csv", rows))
    again = [row["verdict"] for row in verdicts(tmp_path / "again")]
    assert again == ["undecided", "contradicts" if num_images == 1 else "undecided"]


def test_mr_safety_is_the_catalogues_word_or_not_known(tmp_path: Path) -> None:
    note = {"mr_safety": "conditional, 3 T", "mr_safety_source": "Maker's leaflet 7, 2021"}
    changed = save_small_package(tmp_path / "noted", notes={"zimmer": note})
    tops = {"zimmer": 0.97, "tornier": 0.01, "depuy": 0.01}
    said = {"implant": "zimmer", "manufacturer": "Zimmer", "joint": "shoulder", "probability": 0.97}
    seen = {
        **said,
        "outcome": "identified",
        "candidates": ["zimmer"],
        "top": [{"implant": name, "probability": p} for name, p in tops.items()],
    }
    rows = [{"study": "A", "implant": "Zimmer"}, {"study": "B", "implant": "Tornier"}]
    output = write_output(
        tmp_path / "out", [{**seen, "study": "A"}, {**seen, "study": "B"}], changed.id
    )
    registry = write_registry(tmp_path / "r.csv", rows)
    _, summary = run(tmp_path / "report", output, registry, "--model", str(tmp_path / "noted"))
    listed = pq.read_table(tmp_path / "report" / "mr_safety.parquet").to_pylist()
    assert [(row["study"], row["mr_safety"], row["source"]) for row in listed] == [
        ("A", "conditional, 3 T", "Maker's leaflet 7, 2021"),
        ("B", "not known", None),
    ]
    assert summary["mr_safety"]["not_known"] == {"no_note": 0, "no_agreement": 1}
    page = (tmp_path / "report" / "audit.html").read_text()
    assert "Maker&#39;s leaflet 7, 2021" in page
