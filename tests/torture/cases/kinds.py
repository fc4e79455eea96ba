"""Classes 25 to 39: objects that are no radiographs."""

from typing import Any

from implant_model.errors import Reason
from tests.support.dicom_edits import SECONDARY_CAPTURE, dicom, picture
from tests.torture.cases.case import Case
from tests.torture.cases.files import compressed, grey8

STORAGE = "1.2.840.10008.5.1.4.1.1."
NON_IMAGE, NOT_A_RADIOGRAPH = Reason.NON_IMAGE_OBJECT, Reason.NOT_A_RADIOGRAPH


def kind(number: int, what: str, reason: Reason | None, **attributes: Any) -> Case:
    return Case(number, what, lambda: dicom(picture(), **attributes), reason)


def family(number: int, what: str, uid: str) -> Case:
    """An object of another family that has pixels all the same."""
    return kind(number, what, NON_IMAGE, SOPClassUID=STORAGE + uid)


CASES = (
    family(25, "structured report", "88.11"),
    family(25, "comprehensive report", "88.33"),
    family(25, "dose report", "88.67"),
    kind(25, "report by modality", NON_IMAGE, Modality="SR"),
    family(26, "PDF document", "104.1"),
    family(26, "CDA document", "104.2"),
    family(27, "presentation state", "11.1"),
    kind(27, "presentation state by modality", NON_IMAGE, Modality="PR"),
    family(28, "key objects", "88.59"),
    kind(28, "key objects by modality", NON_IMAGE, Modality="KO"),
    family(29, "radiotherapy plan", "481.5"),
    family(29, "radiotherapy structures", "481.3"),
    family(30, "radiotherapy dose with pixels", "481.2"),
    kind(30, "dose by modality", NON_IMAGE, Modality="RTDOSE"),
    family(31, "segmentation", "66.4"),
    family(32, "parametric map", "30"),
    family(33, "waveform", "9.1.1"),
    kind(34, "media directory", NON_IMAGE, SOPClassUID="1.2.840.10008.1.3.10"),
    Case(34, "DICOMDIR by name", lambda: dicom(picture()), Reason.CLUTTER, inside="DICOMDIR"),
    family(35, "real world values", "67"),
    family(36, "raw data", "66"),
    family(37, "video endoscopy", "77.1.1.1"),
    Case(
        37,
        "video syntax",
        lambda: compressed("1.2.840.10008.1.2.4.102", bytes(60), grey8()),
        NON_IMAGE,
    ),
    kind(
        38,
        "dose sheet as a capture",
        NOT_A_RADIOGRAPH,
        Modality="OT",
        SOPClassUID=SECONDARY_CAPTURE,
        ViewPosition=None,
    ),
    kind(
        38,
        "scanned form",
        NOT_A_RADIOGRAPH,
        Modality=None,
        SOPClassUID=SECONDARY_CAPTURE,
        ConversionType="SD",
    ),
    kind(
        38,
        "digitised film is a radiograph",
        None,
        Modality="OT",
        SOPClassUID=SECONDARY_CAPTURE,
        ViewPosition=None,
        ConversionType="DF",
    ),
    *(
        kind(39, f"slice of {modality}", NOT_A_RADIOGRAPH, Modality=modality)
        for modality in ("CT", "MR", "US", "NM", "PT", "MG", "XA", "BMD")
    ),
    kind(39, "CT by class", NOT_A_RADIOGRAPH, SOPClassUID=STORAGE + "2"),
    kind(39, "digital radiograph", None, Modality="DX", SOPClassUID=STORAGE + "1.1"),
)
