"""What a structured report copies of a radiograph's header: patient, study and the object itself.

The tables hold none of the patient's attributes but the number; a report that names a patient reads
them from the archive again. Read by the bounded walk over data elements: no pixel is decoded.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from implant_model.decode.attributes import CHARACTER_SET, Attributes
from implant_model.decode.dicom import looks_like_dicom
from implant_model.decode.elements import read_file
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits

SOP_CLASS: Final = 0x00080016
INSTANCE: Final = 0x00080018
STUDY: Final = 0x0020000D
SERIES: Final = 0x0020000E
PATIENT_ID: Final = 0x00100020
ISSUER: Final = 0x00100021
ACCESSION: Final = 0x00080050
STUDY_ID: Final = 0x00200010
PATIENT_NAME: Final = 0x00100010
REFERRING: Final = 0x00080090
BIRTH_DATE: Final = 0x00100030
SEX: Final = 0x00100040
STUDY_DATE: Final = 0x00080020
STUDY_TIME: Final = 0x00080030
WANTED: Final = frozenset(
    {
        *(CHARACTER_SET, SOP_CLASS, INSTANCE, STUDY, SERIES, PATIENT_ID, ISSUER, ACCESSION),
        *(STUDY_ID, PATIENT_NAME, REFERRING, BIRTH_DATE, SEX, STUDY_DATE, STUDY_TIME),
    }
)
MAX_UID: Final = 64
_UID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_DATE: Final = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class ReportHeader:
    """Attributes of one radiograph as a report may copy them; "" where missing or malformed.

    Identifiers are raw values; none is shown by `repr`.

    Attributes:
        sop_class: SOP Class UID (0008,0016); "" if it is no UID.
        instance: SOP Instance UID (0008,0018), likewise.
        study: Study Instance UID (0020,000D), likewise.
        series: Series Instance UID (0020,000E), likewise.
        patient: Patient ID (0010,0020), as it is in the file, of any length.
        issuer: Issuer of Patient ID (0010,0021), likewise.
        accession: Accession Number (0008,0050), at most 16 characters.
        study_id: Study ID (0020,0010), at most 16 characters.
        name: Patient's Name (0010,0010), at most 64 characters a group.
        referring: Referring Physician's Name (0008,0090), likewise.
        birth_date: Patient's Birth Date (0010,0030), YYYYMMDD.
        sex: Patient's Sex (0010,0040), `M`, `F` or `O`.
        study_date: Study Date (0008,0020), YYYYMMDD.
        study_time: Study Time (0008,0030).
    """

    sop_class: str = ""
    instance: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    series: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    study_id: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    referring: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)
    study_time: str = field(default="", repr=False)


def is_uid(text: str) -> bool:
    """Return whether a text is a UID (PS3.5 section 9.1)."""
    return len(text) <= MAX_UID and _UID.fullmatch(text) is not None


def read_report_header(data: bytes | memoryview, limits: Limits) -> ReportHeader:
    """Read a DICOM file's header.

    Args:
        data: The file, whole.
        limits: Bounds on what is read.

    Raises:
        MemberError: It is no DICOM file, or its header cannot be read.
    """
    if not looks_like_dicom(bytes(data[:512])):
        raise MemberError(Reason.NOT_AN_IMAGE, "The member is no DICOM file.")
    values = Attributes(read_file(data, WANTED, limits))
    return ReportHeader(
        sop_class=_uid(values, SOP_CLASS),
        instance=_uid(values, INSTANCE),
        study=_uid(values, STUDY),
        series=_uid(values, SERIES),
        patient=_text(values, PATIENT_ID),
        issuer=_text(values, ISSUER),
        accession=_short(values, ACCESSION),
        study_id=_short(values, STUDY_ID),
        name=_name(values, PATIENT_NAME),
        referring=_name(values, REFERRING),
        birth_date=_like(_DATE, values.text(BIRTH_DATE)),
        sex=values.text(SEX).upper() if values.text(SEX).upper() in ("M", "F", "O") else "",
        study_date=_like(_DATE, values.text(STUDY_DATE)),
        study_time=_like(_TIME, values.text(STUDY_TIME)),
    )


def _uid(values: Attributes, tag: int) -> str:
    text = values.text(tag)
    return text if is_uid(text) else ""


def _text(values: Attributes, tag: int) -> str:
    return values.identifier(tag) or ""


def _short(values: Attributes, tag: int) -> str:
    """Return a value of VR SH; what is longer than it may be is no value of it."""
    text = _text(values, tag)
    return text if len(text) <= 16 and "\\" not in text else ""


def _name(values: Attributes, tag: int) -> str:
    """Return a value of VR PN: three groups of five components at most (PS3.5 section 6.2.1)."""
    text = _text(values, tag)
    groups = text.split("=")
    is_name = len(groups) <= 3 and all(len(g) <= 64 and g.count("^") <= 4 for g in groups)
    return text if is_name and "\\" not in text else ""


def _like(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""
