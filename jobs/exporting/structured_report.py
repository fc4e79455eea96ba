"""One study's predictions > one Comprehensive SR by TID 1500, and its bytes.

Each radiograph is a measurement group (TID 1501) that refers to it. Where a standard has a code it
is taken: SNOMED CT for the implant as such, joints and sides, DCM for algorithm and report. No
standard has codes of the catalogue's implants, or of this software's outcomes: these are of the
private scheme 99IMPLANT, which each report declares (PS3.3 C.12.1.1.7), the package's `name@hash`
with it. The
Finding is 'Implant', never a product: a product that is one of several, or whose implant is called
unknown, must not be read as found. All that a report holds follows from its input, so that the same
predictions give the same bytes.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import highdicom as hd
from highdicom.sr import CodedConcept, Measurement, QualitativeEvaluation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from implant_model import __version__
from implant_model.errors import Outcome
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.load import ModelPackage
from jobs.entry.command import DISCLAIMER
from jobs.exporting.report_header import ReportHeader
from jobs.exporting.studies import Study, uid_of

SCHEME: Final = "99IMPLANT"
MAKER: Final = "implant-inference"
TITLE: Final = "Implants named by a model; registry audit and research"
SERIES_NUMBER: Final = 9901
_MAX_LO: Final = 64
_JOINTS: Final[Mapping[str, Any]] = {
    "hip": codes.SCT.HipJoint,
    "knee": codes.SCT.KneeJoint,
    "shoulder": codes.SCT.Shoulder,
    "ankle": codes.SCT.AnkleJoint,
    "elbow": codes.SCT.ElbowJoint,
}
_SIDES: Final[Mapping[str, Any]] = {
    "L": codes.SCT.Left,
    "R": codes.SCT.Right,
    "B": codes.SCT.Bilateral,
}
_UNITY: Final = codes.UCUM.NoUnits


@dataclass(frozen=True)
class Model:
    """What a report states of the model.

    Attributes:
        id: `name@hash`, as in the column `model`.
        catalogue: Its implants.
        package: Where it is at hand.
    """

    id: str
    catalogue: Catalogue
    package: ModelPackage | None

    @property
    def name(self) -> str:
        """Return the package's name."""
        return self.id.partition("@")[0]

    @property
    def version(self) -> str:
        """Return the package's hash: whole where it is at hand, else its first digits."""
        return self.id.partition("@")[2] if self.package is None else self.package.hash

    @property
    def parameters(self) -> list[str]:
        """Return what else decides the predictions, and what they are for."""
        known = [f"software: {MAKER} {__version__}", DISCLAIMER]
        if self.package is not None:
            known.insert(1, f"coverage of the candidates: {self.package.coverage:g}")
            known.insert(2, f"novelty above which it is unknown: {self.package.novelty.threshold}")
        return known

    def find(self, name: str) -> Implant | None:
        """Return an implant; None where the catalogue at hand has it not."""
        return next((implant for implant in self.catalogue if implant.name == name), None)


def write_report(
    study: Study, headers: Sequence[ReportHeader], model: Model, made_at: datetime
) -> bytes:
    """Return a study's report as a DICOM file.

    Args:
        study: Its predictions.
        headers: Of each row's radiograph; their identifiers are used as they are.
        model: That made them.
        made_at: When they were made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's hold values
        report = _document(study, headers, model, made_at)
        file = io.BytesIO()
        report.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _document(
    study: Study, headers: Sequence[ReportHeader], model: Model, made_at: datetime
) -> Dataset:
    pairs = [*zip(study.rows, headers, strict=True)]
    content = hd.sr.MeasurementReport(
        observation_context=_context(model),
        procedure_reported=codes.SCT.PlainRadiography,
        imaging_measurements=[
            _group(number, row, header, study, model)
            for number, (row, header) in enumerate(pairs, start=1)
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = hd.sr.ComprehensiveSR(
        evidence=[_evidence(header) for header in headers],
        content=content,
        series_instance_uid=_derived("series", study.uid),
        series_number=SERIES_NUMBER,
        sop_instance_uid=study.uid,
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=_cut(model.id),
        software_versions=__version__,
        series_description=TITLE,
        is_complete=True,
        specific_character_set="ISO_IR 192",
    )
    _date(report, made_at)
    _declare(report, study, headers[0], model)
    return report


def _context(model: Model) -> Any:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=_derived("device", model.version),
        name=_cut(model.name),
        manufacturer_name=MAKER,
        model_name=_cut(model.id),
    )
    observer = hd.sr.ObserverContext(codes.DCM.Device, device)
    return hd.sr.ObservationContext(observer_device_context=observer)


def _group(
    number: int, row: Mapping[str, Any], header: ReportHeader, study: Study, model: Model
) -> Any:
    is_seen = row["outcome"] != Outcome.REJECTED
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=_derived("radiograph", study.uid, header.instance),
            identifier=f"Radiograph {number}",
        ),
        finding_type=codes.SCT.ImplantDevice if is_seen else None,
        finding_sites=[*_sites(row)] or None,
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=model.name,
            version=model.version,
            parameters=model.parameters,
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MAKER,
        ),
        measurements=[*_measurements(row, model)] if is_seen else None,
        qualitative_evaluations=[*_evaluations(row, model)],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(header.sop_class, header.instance),
        ],
    )


def _sites(row: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the joint of what was identified; of other outcomes the model states none."""
    joint = _JOINTS.get(row["joint"] or "")
    if joint is not None and row["outcome"] == Outcome.IDENTIFIED:
        yield hd.sr.FindingSite(joint, laterality=_SIDES.get(row["laterality"] or ""))


def _measurements(row: Mapping[str, Any], model: Model) -> Iterator[Measurement]:
    for one in row["top"] or ():
        name = coded_implant(one["implant"], model, "Probability: ", "probability ")
        yield Measurement(name=name, value=_rounded(one["probability"]), unit=_UNITY)
    if row["novelty"] is not None:
        yield Measurement(coded("novelty"), value=_rounded(row["novelty"]), unit=_UNITY)


def _evaluations(row: Mapping[str, Any], model: Model) -> Iterator[QualitativeEvaluation]:
    outcome = row["outcome"]
    yield QualitativeEvaluation(coded("outcome"), coded(outcome))
    if outcome == Outcome.REJECTED:
        yield QualitativeEvaluation(coded("reason"), coded(row["reason"] or "corrupt"))
    if outcome == Outcome.IDENTIFIED and row["implant"]:
        yield QualitativeEvaluation(coded("implant"), coded_implant(row["implant"], model))
    for name in (row["candidates"] or ()) if outcome == Outcome.AMBIGUOUS else ():
        yield QualitativeEvaluation(coded("candidate"), coded_implant(name, model))
    for doubt in row.get("doubts") or ():
        yield QualitativeEvaluation(coded("doubt"), coded(doubt))


@cache
def coded(word: str) -> CodedConcept:
    """Return the private code of a word of this software."""
    return CodedConcept(word, SCHEME, word.replace("_", " ").capitalize())


def coded_implant(name: str, model: Model, before: str = "", before_code: str = "") -> CodedConcept:
    """Return the private code of a catalogue's implant: its name, and as meaning what it is."""
    implant = model.find(name)
    meaning = name
    if implant is not None:
        meaning = f"{implant.manufacturer} {implant.product or ''}".strip()
    return CodedConcept(f"{before_code}{name}", SCHEME, _cut(before + meaning))


def _evidence(header: ReportHeader) -> Dataset:
    """Return what a report takes over of a radiograph."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = header.sop_class, header.instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = header.study, header.series
    dataset.PatientID, dataset.PatientName = header.patient, header.name
    dataset.PatientBirthDate, dataset.PatientSex = header.birth_date, header.sex
    dataset.AccessionNumber, dataset.StudyID = header.accession, header.study_id
    dataset.StudyDate, dataset.StudyTime = header.study_date, header.study_time
    dataset.ReferringPhysicianName = header.referring
    return dataset


def _date(report: Dataset, made_at: datetime) -> None:
    """State when the predictions were made, in place of now."""
    moment = made_at.astimezone(UTC)
    report.ContentDate = report.InstanceCreationDate = f"{moment:%Y%m%d}"
    report.ContentTime = report.InstanceCreationTime = f"{moment:%H%M%S}"
    report.TimezoneOffsetFromUTC = "+0000"


def _declare(report: Dataset, study: Study, header: ReportHeader, model: Model) -> None:
    """State the private scheme, the patient's issuer, and that pseudonyms are pseudonyms."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = _cut(f"Outcomes, and the catalogue of {model.id}")
    scheme.CodingSchemeVersion = model.id.partition("@")[2]
    scheme.CodingSchemeResponsibleOrganization = MAKER
    report.CodingSchemeIdentificationSequence = [scheme]
    if header.issuer:
        report.IssuerOfPatientID = header.issuer
    if study.is_pseudonymous:
        report.PatientIdentityRemoved = "YES"
        report.DeidentificationMethod = "Keyed pseudonyms in place of identifiers; else empty"
        report.LongitudinalTemporalInformationModified = "REMOVED"


def _derived(*parts: str) -> str:
    return uid_of(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32])


def _rounded(value: float) -> float:
    """Return a number as the table's 32 bits have it, at most 16 characters long (VR DS)."""
    return float(f"{value:.7g}")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LO else text[: _MAX_LO - 3] + "..."
