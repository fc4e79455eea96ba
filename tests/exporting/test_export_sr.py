"""Structured reports of studies: read back by highdicom, refused where whose they are is unsure."""

import csv
import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydicom
import pytest
from pydicom.sr.codedict import codes

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage
from implant_model.phantoms.files import write_dicom
from implant_model.phantoms.render import render
from jobs import export_sr as job
from jobs.exporting import export_run, header_sources, studies
from jobs.exporting.report_header import is_uid
from jobs.tables import delta
from jobs.tables.schema import ARCHIVE_ROW, ARCHIVES
from tests.support.archive_samples import tar_of
from tests.support.audit_samples import write_output
from tests.support.small_package import save_small_package
from tests.support.workbench.review_samples import archive_row, predicted

AMBIGUOUS = {"outcome": "ambiguous", "candidates": ["zimmer", "depuy"], "probability": 0.6}
REJECTED = {
    **dict.fromkeys(("implant", "probability", "candidates", "top", "novelty", "joint")),
    "outcome": "rejected", "reason": "corrupt",
}  # fmt: skip
CT = {**REJECTED, "reason": "not_a_radiograph"}


@dataclass
class Made:
    """An output, its archive and its package."""

    folder: Path
    archive: Path
    package: ModelPackage
    rows: list[dict[str, Any]]
    files: list[pydicom.Dataset]

    def call(self, *more: str) -> list[str]:
        model = ["--model", str(self.folder / "package")]
        return [str(self.folder / "out"), "--output", str(self.folder / "sr"), *model, *more]

    def listed(self) -> list[dict[str, str]]:
        with (self.folder / "sr" / "reports.csv").open(encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    def report(self, study: str) -> Any:
        import highdicom as hd

        (line,) = (line for line in self.listed() if line["study"] == study)
        return hd.sr.srread(self.folder / "sr" / line["file"])


def radiograph(number: int, study: str, patient: str, **more: str) -> pydicom.Dataset:
    phantom = render(ORTHONET[number], np.random.default_rng(number), 64)
    dataset = pydicom.dcmread(io.BytesIO(write_dicom(phantom, np.random.default_rng(number))))
    dataset.StudyInstanceUID = study
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a number that is too long, as hostile files have it
        dataset.PatientID = patient
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Zoë"
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def bytes_of(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def pseudonym(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}{value}".encode()).hexdigest()[:32]


def make(
    folder: Path,
    images: Sequence[tuple[pydicom.Dataset, dict[str, Any]]],
    *,
    is_pseudonymous: bool = False,
) -> Made:
    """Makes an output whose rows are of these files, with what each is predicted to show."""
    package = save_small_package(folder / "package")
    archive = folder / "01.tar"
    archive.write_bytes(tar_of({f"{n}": bytes_of(file) for n, (file, _) in enumerate(images)}))
    entry = archive_row(archive, package, len(images))
    rows = []
    for at, (file, answer) in enumerate(images):
        held = {
            "patient": str(file.PatientID), "study": str(file.StudyInstanceUID),
            "series": str(file.SeriesInstanceUID), "instance": str(file.SOPInstanceUID),
        }  # fmt: skip
        if is_pseudonymous:
            held = {kind: pseudonym(kind, value) for kind, value in held.items()}
        row = {**predicted("zimmer", "", ""), "laterality": "L", **answer, **held}
        rows.append({**row, "member_index": at, "archive_version": entry["archive_version"]})
    output = write_output(folder / "out", rows, package.id)
    table = pa.Table.from_pylist([entry], ARCHIVE_ROW)
    delta.commit(storage.join(output, ARCHIVES), lambda held: delta.write_rows(held, table))
    return Made(folder, archive, package, rows, [file for file, _ in images])


def evaluations(group: Any) -> list[tuple[str, str]]:
    found = group.get_qualitative_evaluations()
    own = [one for one in found if one.name.scheme_designator == "99IMPLANT"]
    return [(one.name.meaning, one.value.meaning) for one in own]


def test_a_study_reads_back_by_template_1500(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [radiograph(n, "1.2.3", "P-7 \u00e9", StudyDate="20260131") for n in range(4)]
    answers: list[dict[str, Any]] = [{}, AMBIGUOUS, {"outcome": "unknown"}, REJECTED]
    made = make(tmp_path, [*zip(files, answers, strict=True), (radiograph(5, "1.2.3", "P"), CT)])
    assert job.main(made.call()) == 0
    report = made.report("1.2.3")
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert (report.PatientID, str(report.PatientName)) == ("P-7 \u00e9", "Müller^Zoë")
    assert (report.StudyInstanceUID, report.StudyDate) == ("1.2.3", "20260131")
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    groups = report.content.get_image_measurement_groups()
    assert [group.source_images[0].referenced_sop_instance_uid for group in groups] == [
        file.SOPInstanceUID for file in files
    ]
    assert evaluations(groups[0]) == [("Outcome", "Identified"), ("Implant", "Zimmer")]
    assert evaluations(groups[1]) == [
        ("Outcome", "Ambiguous"),
        ("Candidate", "Zimmer"),
        ("Candidate", "DePuy"),
    ]
    assert evaluations(groups[2]) == [("Outcome", "Unknown")]
    assert evaluations(groups[3]) == [("Outcome", "Rejected"), ("Reason", "Corrupt")]
    assert [group.finding_type for group in groups] == [codes.SCT.ImplantDevice] * 3 + [None]
    assert groups[0].finding_sites[0].topographical_modifier is None
    assert groups[0].finding_sites[0].value == codes.SCT.Shoulder
    assert groups[0].finding_sites[0].laterality == codes.SCT.Left
    assert not groups[1].finding_sites
    values = {one.name.meaning: one.value for one in groups[0].get_measurements()}
    assert values["Probability: Zimmer"] == pytest.approx(0.95)
    assert values["Novelty"] == pytest.approx(3.5)
    texts = {element.value for element in report.iterall() if element.VR == "UT"}
    assert {made.package.name, made.package.hash} <= texts
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99IMPLANT"
    (line,) = made.listed()
    assert (line["radiographs"], line["others"]) == ("4", "1")
    assert (tmp_path / "sr" / line["file"]).stat().st_mode & 0o077 == 0
    printed = capsys.readouterr()
    assert "1.2.3" not in printed.out + printed.err


def test_codes_are_of_schemes_that_exist_or_that_the_report_declares(tmp_path: Path) -> None:
    made = make(tmp_path, [(radiograph(0, "1.2", "P"), AMBIGUOUS), (radiograph(1, "1.2", "P"), {})])
    assert job.main(made.call()) == 0
    found = set()
    for element in made.report("1.2").iterall():
        if element.tag == 0x00080102:  # Coding Scheme Designator
            found.add(element.value)
    assert found <= {"DCM", "SCT", "UCUM", "RFC5646", "LN", "99IMPLANT"}


def test_a_second_export_writes_nothing_and_gives_the_same(tmp_path: Path) -> None:
    made = make(tmp_path, [(radiograph(0, "1.2", "P"), {})])
    assert job.main(made.call()) == 0
    (line,) = made.listed()
    path = tmp_path / "sr" / line["file"]
    first, moment = path.read_bytes(), path.stat().st_mtime_ns
    made.archive.unlink()  # a report that is there needs no archive
    assert job.main(made.call()) == 0
    assert made.listed()[0]["outcome"] == "there"
    assert path.stat().st_mtime_ns == moment
    path.write_bytes(bytes(len(first)))  # what a disk may keep of it when the power fails
    assert job.main(made.call()) == 3, "it is no report, and its archive is gone"
    assert made.listed()[0]["outcome"] == "none"
    made.archive.write_bytes(tar_of({"0": bytes_of(made.files[0])}))
    path.unlink()
    version = storage.stat(storage.normalise(str(made.archive))).version
    assert version != made.rows[0]["archive_version"]
    assert job.main(made.call()) == 3
    assert made.listed()[0]["reason"] == header_sources.CHANGED
    assert first.startswith(b"\0" * 128 + b"DICM")


def test_pseudonyms_stay_pseudonyms(tmp_path: Path) -> None:
    file = radiograph(0, "1.2.840.1", "SECRET-1", AccessionNumber="SECRET2")
    made = make(tmp_path, [(file, {})], is_pseudonymous=True)
    assert job.main(made.call()) == 0
    report = made.report(made.rows[0]["study"])
    assert report.PatientID == made.rows[0]["patient"]
    assert str(report.PatientName) == ""
    assert report.StudyInstanceUID == studies.uid_of(made.rows[0]["study"])
    assert report.PatientIdentityRemoved == "YES"
    data = (tmp_path / "sr" / made.listed()[0]["file"]).read_bytes()
    for word in (b"SECRET", "Müller".encode(), b"1.2.840.1\0", str(file.SOPInstanceUID).encode()):
        assert word not in data


def test_what_gets_no_report_is_listed(tmp_path: Path) -> None:
    no_class = radiograph(2, "1.2.2", "P")
    no_class.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    twice = [radiograph(n, "1.2.4", "P", SOPInstanceUID="1.2.4.9") for n in (3, 4)]
    images: list[tuple[pydicom.Dataset, dict[str, Any]]] = [
        (radiograph(0, "1.2.1", "P"), {}),
        (radiograph(1, "1.2.1", "Q"), {}),
        (no_class, {}),
        (twice[0], {}),
        (twice[1], AMBIGUOUS),
        (radiograph(5, "1.2.5", "P" * 65), {}),
        (radiograph(6, "1.2.6", "P"), CT),
        (radiograph(7, "1.2.7", "P"), {}),
    ]
    del no_class.SOPClassUID
    made = make(tmp_path, images)
    assert job.main(made.call()) == 3
    reasons = {line["study"]: line["reason"] for line in made.listed()}
    assert reasons == {
        "1.2.1": export_run.PATIENTS,
        "1.2.2": header_sources.NO_HEADER,
        "1.2.4": studies.TWICE,
        "1.2.5": export_run.TOO_LONG,
        "1.2.6": studies.NOTHING,
        "1.2.7": "",
    }


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_archive_that_cannot_be_read_again(tmp_path: Path, damage: str) -> None:
    made = make(tmp_path, [(radiograph(n, f"1.2.{n}", "P"), {}) for n in range(2)])
    if damage == "gone":
        made.archive.unlink()
    else:
        moment = made.archive.stat().st_mtime_ns
        size = made.archive.stat().st_size
        data = made.archive.read_bytes()
        made.archive.write_bytes(data[:1000] + b"\xff" * (size - 1000))
        os.utime(made.archive, ns=(moment, moment))
    assert job.main(made.call()) == 3
    assert {line["outcome"] for line in made.listed()} == {"none"}
    assert len(made.listed()) == 2


def test_predictions_without_identifiers_are_refused(tmp_path: Path) -> None:
    made = make(tmp_path, [(radiograph(0, "1.2", "P"), {})])
    rows = [{**row, "study": None} for row in made.rows]
    write_output(tmp_path / "dropped", rows, made.package.id)
    with pytest.raises(UsageError, match="name no study"):
        job.main([str(tmp_path / "dropped"), *made.call()[1:]])
    assert not (tmp_path / "sr").exists()


def test_a_uid_of_a_pseudonym_is_one() -> None:
    uid = studies.uid_of("f" * 32)
    assert is_uid(uid)
    assert f"{int(uid.removeprefix('2.25.')):032x}"[12] == "8"
